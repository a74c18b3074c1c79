"""The command `golden`: the golden prompts answered by a running endpoint, or only routed, by one or, with `--offline`, by an artefact."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve_app import cli_golden_live as live
from serve_app.cli_shared import AsJson, user_errors

if TYPE_CHECKING:
    from serve_app.evaluate.golden import Report

Url = Annotated[str, typer.Option(help="A running tierwise.")]
ApiKey = Annotated[str, typer.Option(envvar="TIERWISE_API_KEY", help="Key, where the endpoint asks for one.")]
Offline = Annotated[bool, typer.Option("--offline", help="Without an endpoint and without engines: by an artefact alone.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only where each prompt would go: nothing is answered or recorded.")]
Robust = Annotated[bool, typer.Option("--robustness", help="Offline: also how many decisions change by typos, courtesies, pasted text ...")]
Artefact = Annotated[Path | None, typer.Option("--calibration", help="Offline: the artefact; default: the packaged one.")]
Profile = Annotated[str, typer.Option(help="Offline: profile whose embedder and floors are used.")]
Floor = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Exit 1 below this accuracy; offline by default `args.golden.accuracy`.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the order within a pair, of intervals; offline of the perturbations.")]
Page = Annotated[Path | None, typer.Option("--misses", help="Offline: also write every miss with its reason as Markdown.")]


def golden(
    url: Url = "http://127.0.0.1:8000",
    api_key: ApiKey = "",
    offline: Offline = False,
    robustness: Robust = False,
    calibration: Artefact = None,
    profile: Profile = "local",
    floor: Floor = None,
    seed: Seed = 0,
    misses: Page = None,
    dry_run: DryRun = False,
    config: live.Config = Path("deployments.yaml"),
    limit: live.Limit = None,
    baseline: live.Baseline = True,
    max_tokens: live.MaxTokens = 64,
    concurrency: live.Concurrency = 4,
    out: live.Out = None,
    judge: live.Judge = "none",
    reference: live.Reference = None,
    endpoint: live.Endpoint = "",
    model: live.Model = "",
    key_env: live.KeyEnv = "",
    both_orders: live.BothOrders = False,
    as_json: AsJson = False,
) -> None:
    """The golden prompts, which nothing was fitted on, through an endpoint: accuracy with every miss, times and cost beside all large.

    Exit 1 when a floor is missed.
    """
    if offline or dry_run:
        _routed(url, api_key, offline, robustness, calibration, profile, floor, seed, misses, limit, as_json=as_json)
        return
    judging = live.Judging(judge, reference, endpoint, model, key_env, both_orders)
    live.run(live.Run(url, api_key, config, limit, baseline, max_tokens, concurrency, seed, out, floor), judging, as_json=as_json)


def _routed(
    url: str,
    api_key: str,
    offline: bool,
    robustness: bool,
    calibration: Path | None,
    profile: str,
    floor: float | None,
    seed: int,
    misses: Path | None,
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """Decisions only, of an artefact or of an endpoint's `/route`."""
    with user_errors():
        if offline:
            from serve_app.evaluate import golden_command  # noqa: PLC0415 - a command imports what it needs

            found = golden_command.run(calibration, profile, robustness=robustness, floor=floor, seed=seed, progress=_progress, limit=limit)
            if misses is not None:
                misses.write_text(golden_command.page(found), encoding="utf-8")
            report, flips, problems = found.report, found.flips, found.problems
        else:
            from serve_app import remote  # noqa: PLC0415

            report, flips = remote.golden(url, api_key, _progress, limit), ()
            problems = [f"accuracy {report.accuracy:.3f} is below {floor:g}"] if floor is not None and report.accuracy < floor else []
    typer.echo(json.dumps(_as_json(report, flips, problems)) if as_json else "\n".join(_lines(report, flips)))
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


def _as_json(report: "Report", flips: tuple[Any, ...], problems: list[str]) -> dict[str, Any]:
    misses = [{"id": m.id, "expected": m.expected, "got": m.got, "score": m.score, "reason": m.reason} for m in report.misses]
    found = {"total": report.total, "accuracy": report.accuracy, "interval": list(report.interval), "misses": misses}
    return {**found, "flips": {one.name: {"rate": one.rate, "up": one.up, "down": one.down} for one in flips}, "problems": problems}


def _lines(report: "Report", flips: tuple[Any, ...]) -> list[str]:
    lines = []
    for miss in report.misses:
        shown = "-" if miss.score is None else f"{miss.score:.3f}"
        lines.append(f"{miss.id:20} expected {miss.expected:5} got {miss.got:5} score {shown} ({miss.reason}) {miss.prompt[:70]!r}")
    lines += [f"{one.name:14} flips {one.rate:6.1%}  to large {one.up:6.1%}  to small {one.down:6.1%}" for one in flips]
    low, high = report.interval
    interval = f"95 % interval {low:.3f}-{high:.3f}"
    return [*lines, f"accuracy {report.accuracy:.3f} ({interval}) on {report.total} prompts, {report.large_share:.1%} large"]


def _progress(items: list[Any], label: str) -> Iterator[Any]:
    """Iterate with a progress bar on stderr; nothing is drawn where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    with typer.progressbar(items, label=label, file=sys.stderr) as bar:
        yield from bar
