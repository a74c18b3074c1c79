"""The commands of `tierwise` on recorded traffic, each thin."""

import json
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli_shared import AsJson, user_errors

Ledger = Annotated[str, typer.Option(help="The ledger's database; default: `TIERWISE_LEDGER_URL`, or the config's.")]
Config = Annotated[Path, typer.Option(help="The application's file: its ledger and prices.")]
DataFile = Annotated[Path | None, typer.Option(help="Instead of a ledger: a file of `tierwise export`, or JSON lines like it.")]
Since = Annotated[str, typer.Option("--from", "--since", help="Decisions made from then on: 2026-11-24, or Unix time.")]
Until = Annotated[str, typer.Option("--to", "--until", help="Decisions made before then.")]
Outcomes = Annotated[Path | None, typer.Option(help='JSON lines {"id", "weak_score", "strong_score"} or {"id", "expected_tier"}.')]


def replay(
    ledger: Ledger = "",
    data: DataFile = None,
    threshold: Annotated[list[float] | None, typer.Option(help="Thresholds to look at; default: every 0.05.")] = None,
    since: Since = "",
    until: Until = "",
    outcomes: Outcomes = None,
    config: Config = Path("deployments.yaml"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the intervals.")] = 0,
    write: Annotated[float | None, typer.Option(help="Put this threshold into the running application.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before `--write`.")] = False,
    application: Annotated[str, typer.Option("--app", help="The application's name, where several run.")] = "",
    dashboard: Annotated[str, typer.Option(envvar="RAY_DASHBOARD_ADDRESS", help="Ray's dashboard.")] = "http://127.0.0.1:8265",
    as_json: AsJson = False,
) -> None:
    """Recorded traffic under other thresholds: dollars, split and, where judged or labelled, quality, with 95 % intervals."""
    from serve_app.evaluate import recorded  # noqa: PLC0415
    from serve_app.evaluate import replay as replaying  # noqa: PLC0415

    with user_errors():
        source = recorded.Source(config, ledger, data, since, until, outcomes)
        found = recorded.replayed(source, threshold or [], also=write, seed=seed)
        typer.echo(json.dumps(replaying.as_json(found)) if as_json else "\n".join(replaying.as_lines(found)))
        if write is not None:
            recorded.write(write, application, dashboard, _say, lambda ask: yes or typer.confirm(ask, err=True))


def report(
    out: Annotated[Path, typer.Option(help="Where to write the HTML file.")],
    ledger: Ledger = "",
    data: DataFile = None,
    since: Since = "",
    until: Until = "",
    outcomes: Outcomes = None,
    config: Config = Path("deployments.yaml"),
    as_json: AsJson = False,
) -> None:
    """One self-contained HTML file about recorded traffic: split, scores, dollars, latency, and where the two models disagree most."""
    from serve_app.evaluate import html_report, recorded  # noqa: PLC0415

    with user_errors():
        summary = html_report.write(recorded.Source(config, ledger, data, since, until, outcomes), out)
    typer.echo(json.dumps(summary) if as_json else f"{out}: {summary['decisions']} decisions")


def export(
    out: Annotated[Path, typer.Option(help="Where to write the Parquet file.")],
    ledger: Ledger = "",
    since: Since = "",
    until: Until = "",
    receipts: Annotated[bool, typer.Option("--receipts", help="With each decision's receipt as JSON text.")] = False,
    config: Config = Path("deployments.yaml"),
    as_json: AsJson = False,
) -> None:
    """Recorded decisions as a Parquet file."""
    from serve_app.evaluate import recorded  # noqa: PLC0415
    from serve_app.observe import export as exporting  # noqa: PLC0415

    with user_errors():
        url = recorded.url(recorded.Source(config, ledger))
        count = exporting.export(url, out, recorded.moment(since), recorded.moment(until), receipts=receipts)
    typer.echo(json.dumps({"decisions": count, "out": str(out)}) if as_json else f"{out}: {count} decisions")


def _say(line: str) -> None:
    typer.echo(line, err=True)
