"""Put a calibration live, or the one before it back: checked first, recorded, and watched until every replica routes by it.

The artefact goes into the ledger's database under its hash, then the hash into the `user_config` of the running ingress, whose
replicas fetch it. No process restarts.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from serve_app import remote
from serve_app.deployments import live_update
from serve_app.deployments.live_update import Change, ServeApi
from serve_app.domain import Json
from serve_app.embedding import SentenceEmbedder, identity
from serve_app.errors import CalibrationError, RequestError, TierwiseError
from serve_app.evaluate import golden_offline, recorded, sources
from serve_app.evaluate.golden_offline import Gate
from serve_app.evaluate.live_check import AUTO, Pair, Watch, shown
from serve_app.observe.artefacts import MOST_BYTES, Artefacts, Promotion
from serve_app.observe.store import Store
from serve_app.routing.heads import Heads
from serve_app.routing.score import Artefact, load
from serve_app.settings import Settings, parse_live
from serve_app.settings.live import PROFILE

Progress = Callable[[list[Any], str], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks say of an artefact; empty `problems` let it through."""

    gate: Gate
    problems: tuple[str, ...]

    def as_json(self) -> Json:
        gate = self.gate
        found = {"accuracy": gate.accuracy, "interval": list(gate.interval), "misses": len(gate.misses), "flips": dict(gate.flips)}
        return {**found, "problems": list(self.problems)}


@dataclass(frozen=True, slots=True)
class How:
    """What a person, or their `--yes`, has to say: `say` tells them a line, `sure` asks. `by` is written into the history."""

    say: Callable[[str], None]
    sure: Callable[[str], bool]
    by: str
    forced: bool = False
    keep_threshold: bool = False
    now: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Where:
    """Which application, and how it is reached; what is empty, `config` says. `timeout_s` is for its replicas to follow."""

    config: Path
    ledger: str = ""
    application: str = ""
    dashboard: str = ""
    url: str = ""
    api_key: str = ""
    timeout_s: float = 60.0


class Running:
    """A running application: what routes in it, its ledger's artefacts, and the way to put another one."""

    def __init__(self, api: ServeApi, shelf: Artefacts, settings: Settings, watch: Watch, application: str = "") -> None:
        self.shelf = shelf
        self.settings = settings
        self._api = api
        self._watch = watch
        self._asked = application or None
        self.application, self.pair = self._running()

    def _running(self) -> tuple[str, Pair]:
        now = live_update.change(self._api.details(), {}, self._asked)
        live = parse_live(self.settings.live, now.before)
        return now.application, Pair(live.calibration, None if live.threshold == AUTO else float(live.threshold))

    def artefact(self, name: str) -> Artefact | None:
        """None where the ledger has none of that name. Raises `CalibrationError` for one that cannot be served."""
        if name == PROFILE:
            return self._watch.profile(self.settings)
        blob = self.shelf.get(name)
        return None if blob is None else load(blob, identity(self.settings.embedder))

    def put(self, action: str, pair: Pair, how: How, *, verdict: Verdict | None = None, first: Callable[[], object] = lambda: None) -> Json:
        """Show, ask, do what is to be done `first`, put, record, and watch; whether it is in force everywhere."""
        previous = self.pair
        done = live_update.put(self._api, pair.values, self.application, say=how.say, sure=how.sure, first=first)
        answer = {"calibration": pair.calibration, "previous": previous.calibration, "application": self.application}
        if not done.written:
            return {**answer, "written": False, "in_force": pair == previous}
        self._record(action, pair, how, verdict)
        seen = self._watch.until_in_force(pair.calibration, lambda: live_update.replicas(self._api.details(), self.application))
        how.say(seen.says)
        how.say(_to_commit(done.change))
        return {**answer, "written": True, "in_force": seen.everywhere, "seen": seen.says}

    def _record(self, action: str, pair: Pair, how: How, verdict: Verdict | None) -> None:
        line = Promotion(
            at=how.now(),
            application=self.application,
            action=action,
            calibration=pair.calibration,
            previous=self.pair.calibration,
            by=how.by,
            threshold=pair.threshold,
            previous_threshold=self.pair.threshold,
            forced=verdict is not None and bool(verdict.problems),
            gate=verdict.as_json() if verdict is not None else None,
        )
        self.shelf.promoted(line)


def _to_commit(change: Change) -> str:
    return f"in deployments.yaml, so that the next deployment keeps it:\n{change.lines()}"


def promote(file: Path, live: Running, how: How, check: Callable[[Artefact], Gate]) -> Json:
    """Check `file` and put it live. `check` is the golden set's gate. Raises `TierwiseError` for what cannot be served at all."""
    blob, artefact = read(file, live.settings)
    pair = Pair(artefact.sha256, live.pair.threshold if how.keep_threshold else None)
    if pair == live.pair:
        how.say("this is in force already")
        return {"calibration": pair.calibration, "written": False, "in_force": True}
    verdict = judged(artefact, live.settings, check(artefact))
    for line in shown(live.pair, _old(live), pair, artefact, verdict.gate):
        how.say(line)
    for problem in verdict.problems:
        how.say(f"{'forced: ' if how.forced else ''}{problem}")
    found = {"gate": verdict.as_json(), "forced": how.forced and bool(verdict.problems)}
    if verdict.problems and not how.forced:
        return {"calibration": pair.calibration, "written": False, "in_force": False, **found}

    def keep() -> str:
        report = {"description": artefact.description, "gate": verdict.as_json()}
        forced = bool(verdict.problems)
        return live.shelf.put(blob, kind=artefact.kind, embedder=artefact.embedder, report=report, created=how.now(), forced=forced)

    return {**live.put("promote", pair, how, verdict=verdict, first=keep), **found}


def rollback(live: Running, how: How, to: str = "") -> Json:
    """Put back what routed before, or the artefact of the history that `to` begins. Raises `TierwiseError` when there is none."""
    pair = _named(to, live) if to else _before(live)
    if pair == live.pair:
        raise RequestError(f"{pair.calibration:.12} is in force already")
    if live.artefact(pair.calibration) is None:
        raise RequestError(f"the ledger has no artefact {pair.calibration:.12}")
    return live.put("rollback", pair, how)


def _before(live: Running) -> Pair:
    put = stack(live.shelf.history(live.application))
    if len(put) < 2:
        raise RequestError("nothing was promoted that could be taken back")
    if put[-1].calibration != live.pair.calibration:
        raise RequestError(
            f"{live.pair.calibration:.12} is in force, but {put[-1].calibration:.12} was promoted last: name what is to come by --to"
        )
    return put[-2]


def _named(to: str, live: Running) -> Pair:
    history = live.shelf.history(live.application)
    pairs = [Pair(PROFILE), *_oldest(history), *(Pair(line.calibration, line.threshold) for line in history)]
    found = {pair.calibration: pair for pair in pairs if pair.calibration.startswith(to)}
    if len(found) != 1:
        raise RequestError(f"{to}: {len(found) or 'none'} of the history's calibrations begin so")
    return next(iter(found.values()))


def stack(history: list[Promotion]) -> list[Pair]:
    """What rollbacks go back through, the latest last. One takes off what was put upon the pair that it goes to."""
    put = _oldest(history)
    for line in history:
        below = [pair.calibration for pair in put[:-1]]
        if line.action == "rollback" and line.calibration in below:
            del put[len(below) - below[::-1].index(line.calibration) :]
        else:
            put.append(Pair(line.calibration, line.threshold))
    return put


def _oldest(history: list[Promotion]) -> list[Pair]:
    """What ran before the first line."""
    return [Pair(line.previous, line.previous_threshold) for line in history[:1]]


def read(file: Path, settings: Settings) -> tuple[bytes, Artefact]:
    """Raises `TierwiseError` when it is no artefact, too large, or made with another embedder."""
    if file.stat().st_size > MOST_BYTES:
        raise RequestError(f"{file}: larger than {MOST_BYTES} bytes")
    blob = file.read_bytes()
    try:
        return blob, load(blob, identity(settings.embedder))
    except CalibrationError as error:
        raise RequestError(f"{file}: {error.message}") from None


def judged(artefact: Artefact, settings: Settings, gate: Gate) -> Verdict:
    """The golden set's word, and for a `gain` artefact what it says of itself: better than random, interval and all."""
    problems = list(gate.problems)
    if isinstance(artefact, Heads) and settings.golden.above_random:
        low = artefact.description.get("apgr_low")
        if not isinstance(low, int | float):
            problems.append("the artefact does not say how much better than random it is: `tierwise calibrate` makes one that does")
        elif low <= 0.5:
            problems.append(f"the artefact's own APGR may be that of random: its 95 % interval begins at {low:.3f}")
    return Verdict(gate, tuple(problems))


def golden_gate(settings: Settings, progress: Progress) -> Callable[[Artefact], Gate]:
    """The golden set's gate. The embedding model is loaded when it is asked for the first time: an artefact without it never does."""
    models: list[SentenceEmbedder] = []

    def embed(texts: Sequence[str]) -> golden_offline.Array:
        if not models:
            models.append(SentenceEmbedder(settings.embedder))
        return np.stack([models[0].encode([text])[0] for text in progress(list(texts), "asking the golden set")])

    return lambda artefact: golden_offline.gate(artefact, settings, embed)


def _old(live: Running) -> Artefact | None:
    """What routes now; None where it cannot be read, which is no reason not to replace it."""
    try:
        return live.artefact(live.pair.calibration)
    except CalibrationError:
        return None


@contextmanager
def running(where: Where) -> Iterator[Running]:
    """Raises `TierwiseError` in one line when the application, its ledger, or the config is not there."""
    settings = sources.settings_of(where.config)
    url = recorded.url(recorded.Source(where.config, where.ledger))
    watch = Watch(where.url or remote.url_of(where.config), where.api_key, where.timeout_s)
    api = live_update.ServeApi(where.dashboard, live_update.token(os.environ))
    try:
        with opened(url) as shelf:
            yield Running(api, shelf, settings, watch, where.application)
    finally:
        api.close()


@contextmanager
def opened(url: str) -> Iterator[Artefacts]:
    """The artefacts of a ledger that is there. Raises `TierwiseError` in one line, without the URL: it may hold a password."""
    store = None
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and not (parsed.database and Path(parsed.database).is_file()):
            raise RequestError(f"{parsed.database or 'memory'}: there is no such ledger")
        store = Store(url)
        yield store.artefacts
    except (ArgumentError, NoSuchModuleError, ImportError):
        raise RequestError("the ledger's URL is none that SQLAlchemy understands, or its driver is not installed") from None
    except SQLAlchemyError as error:
        raise TierwiseError(f"the ledger's database does not do it: {type(error).__name__}") from None
    finally:
        if store is not None:
            store.close()


def as_lines(history: list[Promotion]) -> list[str]:
    """The history for a person, the latest last."""
    return [_as_line(line) for line in history] or ["nothing was promoted yet"]


def _as_line(line: Promotion) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(line.at))
    threshold = "its own threshold" if line.threshold is None else f"threshold {line.threshold:g}"
    forced = ", FORCED: " + "; ".join((line.gate or {}).get("problems", [])) if line.forced else ""
    return f"{at}  {line.application}  {line.action:8}  {line.previous:.12} -> {line.calibration:.12}, {threshold}, by {line.by}{forced}"


def as_json(history: list[Promotion]) -> list[Json]:
    return [asdict(line) for line in history]
