"""What the commands on recorded traffic share: which records, and a threshold put into the running application."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serve_app.deployments import live_update
from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.evaluate import history, replay, sources
from serve_app.evaluate.history import History

LEDGER_ENV = "TIERWISE_LEDGER_URL"  # of no account where a file is named: a cluster's nodes have it set


@dataclass(frozen=True, slots=True)
class Source:
    """A ledger's URL, or a file; else the ledger of the environment, or of `config`. Times: Unix time or ISO 8601, empty for all."""

    config: Path
    ledger: str = ""
    data: Path | None = None
    since: str = ""
    until: str = ""
    outcomes: Path | None = None


def load(source: Source) -> History:
    """Raises `TierwiseError` when there is nothing or it cannot be read."""
    if source.ledger and source.data is not None:
        raise RequestError("a ledger or a file: one of the two")
    since, until = moment(source.since), moment(source.until)
    outcomes = history.read_outcomes(source.outcomes) if source.outcomes is not None else None
    if source.data is not None:
        return history.from_file(source.data, since, until, outcomes)
    return history.from_ledger(url(source), since, until, outcomes)


def url(source: Source) -> str:
    return source.ledger or os.environ.get(LEDGER_ENV) or sources.ledger_url("", sources.settings_of(source.config))


def replayed(source: Source, thresholds: list[float], *, also: float | None = None, seed: int = 0) -> replay.Replay:
    """Under `thresholds` or a grid, under the one in force and `also`. Prices are the config's. Raises `TierwiseError`."""
    thresholds = [*(thresholds or replay.GRID), *([] if also is None else [also])]
    if len(thresholds) > replay.MOST or not all(0.0 <= one <= 1.0 for one in thresholds):
        raise RequestError(f"thresholds: up to {replay.MOST} numbers from 0 to 1")
    small = sources.settings_of(source.config).small.price
    return replay.replay(load(source), thresholds, small, seed=seed)


def write(threshold: float, application: str, dashboard: str, say: Callable[[str], None], sure: Callable[[str], bool]) -> Json:
    """Show what would change, ask, put it, and say what to commit. Raises `TierwiseError`."""
    api = live_update.ServeApi(dashboard, live_update.token(os.environ))
    try:
        done = live_update.put(api, {"threshold": threshold}, application or None, say=say, sure=sure)
    finally:
        api.close()
    wanted = done.change
    if not done.written:
        return {"written": False, "application": wanted.application, "user_config": dict(wanted.before)}
    say(f"done; in deployments.yaml, so that the next deployment keeps it:\n{wanted.lines()}")
    return {"written": True, "application": wanted.application, "user_config": dict(wanted.after)}


def moment(text: str) -> float | None:
    """Unix time of a number of seconds or an ISO 8601 date or time; one without an offset is UTC. Raises `RequestError`."""
    if not text:
        return None
    try:
        return _finite(float(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise RequestError(f"{text}: neither Unix time nor a date such as 2026-11-24 or 2026-11-24T12:00+01:00") from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise RequestError(f"{value}: not a moment")
    return value
