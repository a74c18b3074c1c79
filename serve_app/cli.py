"""`tierwise`: one function per command, each thin. Exit code 0: done, 1: a check failed, 2: the user's mistake."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app import __version__, cli_audit, cli_bench, cli_golden, cli_judge, cli_promote, cli_recorded
from serve_app.cli_shared import AsJson, user_errors

__all__ = ["app", "main", "user_errors"]

app = typer.Typer(
    name="tierwise",
    help="Answer easy requests on a small model and hard ones on a large one.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
READY = """
tierwise is ready at {url} after {seconds:.0f} s. Try:
  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "What is a router?"}}]}}'
or open {url} in a browser.
"""


def main() -> None:
    app()


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="The application's file.")] = Path("deployments.yaml"),
    machine: Annotated[bool, typer.Option("--machine/--no-machine", help="Also check this machine: port free, memory.")] = True,
    schema: Annotated[bool, typer.Option("--schema", help="Print every setting with its description, as JSON Schema.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check deployments.yaml without starting anything: one line per problem."""
    if schema:
        from serve_app.settings.schema import schema as of_everything  # noqa: PLC0415

        typer.echo(json.dumps(of_everything(), indent=2))
        return
    from serve_app.validate import check_file  # noqa: PLC0415 - a command imports what it needs

    report = check_file(file, check_machine=machine)
    if as_json:
        typer.echo(json.dumps({"ok": not report.problems, "problems": report.problems, "warnings": report.warnings}))
    else:
        for line in report.problems:
            typer.echo(line, err=True)
        for line in report.warnings:
            typer.echo(f"warning: {line}", err=True)
        if not report.problems:
            typer.echo(f"{file}: fine")
    if report.problems:
        raise typer.Exit(2)


Share = typer.Option(help="Outcome rows only: this share to the large tier, e.g. 0.15.")
Quality = typer.Option(help="Outcome rows only: keep this part of the large model's quality, e.g. 0.95.")
Budget = typer.Option(help="Outcome rows only: US dollars for 1,000 requests, by the profile's prices.")


@app.command()
def calibrate(
    out: Annotated[Path, typer.Option(help="Where to write the artefact.")],
    data: Annotated[list[Path] | None, typer.Option(help="JSONL files of rows; default: the packaged labels, fit part.")] = None,
    profile: Annotated[str, typer.Option(help="Profile whose embedder and prices are used.")] = "local",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cross-validation.")] = 0,
    rate: Annotated[bool, typer.Option(help="Labelled rows only: also ask the profile's router model, to place its middle.")] = True,
    target_share: Annotated[float | None, Share] = None,
    keep_quality: Annotated[float | None, Quality] = None,
    budget: Annotated[float | None, Budget] = None,
    threshold: Annotated[float | None, typer.Option(help="Outcome rows only: this threshold.")] = None,
    answer_tokens: Annotated[int, typer.Option(help="Mean length of an answer, for `--budget`.")] = 200,
    ledger: Annotated[str, typer.Option(help="Also fit on what this ledger's judgements, feedback and early exits say.")] = "",
    from_ledger: Annotated[bool, typer.Option("--from-ledger", help="The same, of `TIERWISE_LEDGER_URL` or deployments.yaml.")] = False,
    since: cli_recorded.Since = "",
    embed: Annotated[bool | None, typer.Option(help="Outcome rows only: use the embedder too, if that is better (the default).")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a score and write it as an artefact: on labels (`expected_tier`), or on outcomes (`weak_score`, `strong_score`)."""
    from serve_app import offline  # noqa: PLC0415
    from serve_app.evaluate import gain, labelled_recorded  # noqa: PLC0415

    with user_errors(), labelled_recorded.with_ledger(data, ledger, since, config=from_ledger) as files:
        asked = gain.Asked(target_share, keep_quality, budget, threshold, answer_tokens)
        if files and gain.is_outcomes(files):
            fitted = offline.calibrate_outcomes(files, asked, profile=profile, seed=seed, embed=embed is not False, progress=_progress)
            out.write_bytes(gain.dump(fitted))
            lines, summary = gain.as_lines(fitted), {**gain.summary(fitted), "out": str(out)}
        else:
            gain.refuse_knobs(asked, embed=embed is True)
            calibration = offline.calibrate(files, profile=profile, seed=seed, rate=rate, progress=_progress)
            out.write_bytes(offline.dump(calibration))
            summary = {
                **calibration.description,
                "large_share": calibration.large_share,
                "threshold": calibration.threshold,
                "out": str(out),
            }
            lines = [f"{key}: {value}" for key, value in summary.items()]
    typer.echo(json.dumps(summary) if as_json else "\n".join(lines))


@app.command()
def evaluate(
    data: Annotated[list[Path], typer.Option(help="JSONL files of rows with weak_score and strong_score.")],
    calibration: Annotated[Path | None, typer.Option(help="Artefact to judge; default: one fitted on these rows, nested.")] = None,
    train_elsewhere: Annotated[bool, typer.Option("--train-elsewhere", help="Judge each benchmark by a fit on all others.")] = False,
    centroids: Annotated[bool, typer.Option("--centroids", help="Compare with the packaged centroids too; embeds every prompt.")] = False,
    embed: Annotated[bool, typer.Option(help="Fits may use the embedder too, as `calibrate` does.")] = True,
    profile: Annotated[str, typer.Option(help="Profile whose embedder and prices are used.")] = "local",
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How good a score is for routing: beside random, length, keywords and the oracle, per benchmark, pooled, and as a mean."""
    from serve_app import offline  # noqa: PLC0415
    from serve_app.evaluate import report  # noqa: PLC0415

    with user_errors():
        found = offline.evaluate(
            data,
            calibration=calibration,
            train_elsewhere=train_elsewhere,
            centroids=centroids,
            embed=embed,
            profile=profile,
            seed=seed,
            progress=_progress,
        )
    typer.echo(json.dumps(found) if as_json else "\n".join(report.as_lines(found)))


@app.command()
def score(
    calibration: Annotated[Path | None, typer.Option(help="Artefact to score with; default: the packaged one.")] = None,
    profile: Annotated[str, typer.Option(help="Profile whose embedder is used.")] = "local",
) -> None:
    """Score prompts without Ray: lines {"id", "prompt" | "messages"} in, {"id", "score", "tier", "reason"} out."""
    from serve_app import offline  # noqa: PLC0415

    with user_errors():
        for line in offline.score_lines(sys.stdin, calibration=calibration, profile=profile):
            typer.echo(json.dumps(line, ensure_ascii=False))


@app.command()
def status(
    url: Annotated[str, typer.Option(help="A running tierwise; default: what the config file says.")] = "",
    config: Annotated[Path, typer.Option(help="The application's file.")] = Path("deployments.yaml"),
    api_key: Annotated[str, typer.Option(envvar="TIERWISE_API_KEY", help="Key, where the endpoint asks for one.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is ready and say so.")] = False,
    timeout: Annotated[float, typer.Option(help="Give up waiting after this many seconds.")] = 900.0,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every second, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a running endpoint says of itself, on one screen."""
    from rich.console import Console  # noqa: PLC0415

    from serve_app import remote, screen  # noqa: PLC0415

    with user_errors():
        url = url or remote.url_of(config)
        if wait:
            seconds = remote.wait_ready(url, timeout, say=lambda line: typer.echo(f"tierwise: {line}"))
            typer.echo(READY.format(url=url, seconds=seconds))
            return
        if as_json:
            typer.echo(json.dumps(remote.status(url, api_key)))
            return
        with suppress(KeyboardInterrupt):
            screen.watch(url, api_key, Console(), lambda: time.sleep(1.0), live=watch)


@app.command("cost-exporter")
def cost_exporter(
    config: Annotated[Path, typer.Option(help="The application's file: prices, fleet, `args.exporter`.")] = Path("deployments.yaml"),
    target: Annotated[list[str] | None, typer.Option(help="URL of a Ray node's metrics, as often as needed; else those of Ray.")] = None,
    discovery: Annotated[str, typer.Option(help="Ray's list of nodes; default: `args.exporter.discovery`.")] = "",
    host: Annotated[str, typer.Option(help="Address to answer on; default: `args.exporter.host`.")] = "",
    port: Annotated[int, typer.Option(help="Port to answer on; default: `args.exporter.port`.")] = -1,
    once: Annotated[bool, typer.Option("--once", help="Read once, print, and leave.")] = False,
    as_json: AsJson = False,
) -> None:
    """Dollars as Prometheus metrics: by token prices and by instance-hours, against the same traffic all large."""
    from serve_app.observe import exporter_cli  # noqa: PLC0415

    with user_errors():
        settings = exporter_cli.settings(config, targets=target, discovery=discovery, host=host, port=port)
        if once:
            typer.echo(exporter_cli.once(settings, as_json=as_json))
            return
        exporter_cli.serve(settings, say=lambda line: typer.echo(line, err=True))


@app.command("new-key")
def new_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Public name of the key, in logs and receipts.")],
    admin: Annotated[bool, typer.Option("--admin", help="It reads every decision and `/status` in detail.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an API key: the key on stderr, once, and on stdout the lines to append to `auth.keys_file` (only its digest)."""
    from serve_app import keys  # noqa: PLC0415

    with user_errors():
        key = keys.new_key()
        lines = keys.yaml_lines(key_id, key, admin=admin)
    if as_json:
        typer.echo(json.dumps({"id": key_id, "key": key, "sha256": keys.digest(key), "admin": admin}))
        return
    typer.echo(f"the key, which is shown this once: {key}", err=True)
    typer.echo(lines, nl=False)


@app.command("early-exit")
def early_exit(
    url: Annotated[str, typer.Option(help="A running tierwise.")] = "http://127.0.0.1:8000",
    api_key: Annotated[str, typer.Option(envvar="TIERWISE_API_KEY", help="Key, where the endpoint asks for one.")] = "",
    tokens: Annotated[int, typer.Option(help="First tokens of an answer that are looked at.")] = 16,
    target_share: Annotated[float, typer.Option(help="Share of the prompts labelled small that may be sent on.")] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Ask the small tier every labelled prompt: does its doubt tell hard from easy, and below which threshold?"""
    from serve_app.evaluate import early_exit as evidence  # noqa: PLC0415

    with user_errors():
        report = evidence.measure(url, api_key, _progress, tokens=tokens, target_share=target_share)
    if as_json:
        typer.echo(json.dumps({**asdict(report), "tells": report.tells}))
        return
    typer.echo("\n".join(evidence.as_text(report)))


@app.command()
def plan(
    traffic: Annotated[str | None, typer.Option(help="A YAML file of traffic, or a recorded ledger: a SQLite file or a URL.")] = None,
    requests_per_month: Annotated[float | None, typer.Option(help="Requests a month; default: the file's, or 10 million.")] = None,
    large_share: Annotated[float | None, typer.Option(help="Share that the threshold sends to the large tier; default 0.15.")] = None,
    engines: Annotated[Path | None, typer.Option(help="YAML file of measured speeds, in place of the derived ones.")] = None,
    prices: Annotated[Path | None, typer.Option(help="YAML file of prices, in place of the packaged ones.")] = None,
    efficiency: Annotated[float, typer.Option(help="Part of the nominal bandwidth that the derived speeds reach.")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this SVG or PNG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a fleet: instances, latencies and dollars a month, all large and routed, with and without early exit."""
    from serve_app.planning import command, report  # noqa: PLC0415

    with user_errors():
        wanted = command.Wanted(traffic, requests_per_month, large_share, engines, prices, efficiency, seed, plot)
        found = command.run(wanted, _progress)
    typer.echo(json.dumps(report.as_json(found)) if as_json else "\n".join(report.as_lines(found)))


audit = app.command()(cli_audit.audit)
bench = app.command()(cli_bench.bench)
golden = app.command()(cli_golden.golden)
replay = app.command()(cli_recorded.replay)
report = app.command()(cli_recorded.report)
export = app.command()(cli_recorded.export)
promote = app.command()(cli_promote.promote)
rollback = app.command()(cli_promote.rollback)
calibrations = app.command()(cli_promote.calibrations)
judge = app.command()(cli_judge.judge)


def _progress(items: list[Any], label: str) -> Iterator[Any]:
    """Iterate with a progress bar on stderr; nothing is drawn where stderr is no terminal."""
    if not sys.stderr.isatty():  # click would still print the label
        yield from items
        return
    with typer.progressbar(items, label=label, file=sys.stderr) as bar:
        yield from bar


Progress = Callable[[list[Any], str], Iterator[Any]]

if __name__ == "__main__":
    main()
