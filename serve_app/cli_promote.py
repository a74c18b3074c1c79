"""The commands of `tierwise` that put a calibration live, take it back, and list what was live; each thin."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli_recorded import Config, Ledger
from serve_app.cli_shared import AsJson, user_errors

Application = Annotated[str, typer.Option("--app", help="The application's name, where several run.")]
Dashboard = Annotated[str, typer.Option(envvar="RAY_DASHBOARD_ADDRESS", help="Ray's dashboard.")]
Url = Annotated[str, typer.Option(help="The endpoint, for `/status`; default: what the config file says.")]
ApiKey = Annotated[str, typer.Option(envvar="TIERWISE_API_KEY", help="An admin's key, where the endpoint asks for one.")]
Seconds = Annotated[float, typer.Option(min=0.0, help="Wait so many seconds for every replica to route by it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
By = Annotated[str, typer.Option(envvar="USER", help="Who does it, for the history.")]
HERE = "http://127.0.0.1:8265"


def promote(
    calibration: Annotated[Path, typer.Argument(help="The artefact, made by `tierwise calibrate`.")],
    force: Annotated[bool, typer.Option("--force", help="Also when the checks say no; the history remembers it.")] = False,
    keep_threshold: Annotated[
        bool, typer.Option("--keep-threshold", help="Keep the running threshold; default: the artefact's own.")
    ] = False,
    config: Config = Path("deployments.yaml"),
    ledger: Ledger = "",
    application: Application = "",
    dashboard: Dashboard = HERE,
    url: Url = "",
    api_key: ApiKey = "",
    timeout: Seconds = 60.0,
    by: By = "unknown",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Check a calibration on the golden set, show what changes, and put it into the running application; nothing restarts."""
    from serve_app.evaluate import promotion  # noqa: PLC0415

    with user_errors():
        how = promotion.How(_say, _sure(yes), by, forced=force, keep_threshold=keep_threshold)
        where = promotion.Where(config, ledger, application, dashboard, url, api_key, timeout)
        with promotion.running(where) as live:
            found = promotion.promote(calibration, live, how, promotion.golden_gate(live.settings, _progress))
    _end(found, as_json=as_json)


def rollback(
    to: Annotated[str, typer.Option(help="A hash of the history, or its beginning, or `profile`; default: what was live before.")] = "",
    config: Config = Path("deployments.yaml"),
    ledger: Ledger = "",
    application: Application = "",
    dashboard: Dashboard = HERE,
    url: Url = "",
    api_key: ApiKey = "",
    timeout: Seconds = 60.0,
    by: By = "unknown",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put the calibration back that was live before, with its threshold; nothing restarts."""
    from serve_app.evaluate import promotion  # noqa: PLC0415

    with user_errors():
        where = promotion.Where(config, ledger, application, dashboard, url, api_key, timeout)
        with promotion.running(where) as live:
            found = promotion.rollback(live, promotion.How(_say, _sure(yes), by), to)
    _end(found, as_json=as_json)


def calibrations(config: Config = Path("deployments.yaml"), ledger: Ledger = "", as_json: AsJson = False) -> None:
    """What was put live when, by whom, and whether it was forced; the latest last."""
    from serve_app.evaluate import promotion, recorded  # noqa: PLC0415

    with user_errors(), promotion.opened(recorded.url(recorded.Source(config, ledger))) as shelf:
        history = shelf.history()
    typer.echo(json.dumps(promotion.as_json(history)) if as_json else "\n".join(promotion.as_lines(history)))


def _end(found: dict[str, Any], *, as_json: bool) -> None:
    """Exit code 1 when the checks said no, or when what was put is not in force everywhere."""
    if as_json:
        typer.echo(json.dumps(found))
    if found.get("gate", {}).get("problems") and not found["forced"]:
        typer.echo("not promoted: the checks say no (`--force` would do it all the same, and be remembered)", err=True)
        raise typer.Exit(1)
    if found["written"] and not found["in_force"]:
        raise typer.Exit(1)


def _progress(texts: list[Any], label: str) -> Iterator[Any]:
    """A progress bar on stderr; nothing is drawn where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield from texts
        return
    with typer.progressbar(texts, label=label, file=sys.stderr) as bar:
        yield from bar


def _sure(yes: bool) -> Callable[[str], bool]:
    return lambda ask: yes or typer.confirm(ask, err=True)


def _say(line: str) -> None:
    typer.echo(line, err=True)
