"""What a person sees of a promotion: the two artefacts side by side before it, and what the running replicas say after it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from serve_app import remote
from serve_app.calibrations import named
from serve_app.domain import Json
from serve_app.embedding import identity
from serve_app.errors import TierwiseError
from serve_app.evaluate.golden_offline import Gate
from serve_app.routing.score import Artefact
from serve_app.settings import Settings

AUTO = "auto"
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Pair:
    """What routes: an artefact's hash or `profile`, and a threshold beside it; None is the artefact's own."""

    calibration: str
    threshold: float | None = None

    @property
    def values(self) -> Json:
        """As `user_config` has them."""
        return {"calibration": self.calibration, "threshold": AUTO if self.threshold is None else self.threshold}


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether every replica of the ingress routes by it, and what was seen last, in words."""

    everywhere: bool
    says: str


class Watch:
    """Asks a running endpoint's `/status`, for `seconds` at most."""

    def __init__(self, url: str, api_key: str = "", seconds: float = 60.0, pause: Callable[[float], None] = time.sleep) -> None:
        self._url = url
        self._api_key = api_key
        self._seconds = seconds
        self._pause = pause

    def profile(self, settings: Settings) -> Artefact:
        """What `args.router.calibration` names. Raises `CalibrationError`."""
        return named(settings.router.calibration, identity(settings.embedder))

    def until_in_force(self, name: str, replicas: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> Seen:
        """`name` is an artefact's hash, or `profile`; `replicas` is how many of the ingress Serve runs. Never raises `TierwiseError`."""
        end = clock() + self._seconds
        while True:
            seen = self._look(name, replicas)
            if seen is None:
                return Seen(everywhere=False, says=f"{self._url}/status does not tell this key what is in force: ask with an admin's")
            if seen.everywhere or clock() >= end:
                return seen if seen.everywhere else Seen(everywhere=False, says=f"not in force after {self._seconds:g} s: {seen.says}")
            self._pause(POLL_S)

    def _look(self, name: str, replicas: Callable[[], int]) -> Seen | None:
        try:
            found = remote.status(self._url, self._api_key)
            wanted = max(1, replicas())
        except (TierwiseError, httpx.HTTPError) as error:
            return Seen(everywhere=False, says=str(error))
        return _seen(found["artefact"], name, wanted) if isinstance(found.get("artefact"), dict) else None


def _seen(artefact: Json, name: str, wanted: int) -> Seen:
    """All that answered route by it, and as many answered as Serve runs."""
    replicas = {str(one): int(count) for one, count in artefact.get("replicas", {}).items()}
    now = artefact.get("in_force") if name == "profile" else name
    with_it, answered = replicas.get(str(now), 0), sum(replicas.values())
    told = f"{with_it} of {max(answered, wanted)} replicas of the ingress route by {name:.12}"
    if artefact.get("wanted") != name:
        return Seen(everywhere=False, says=f"{told}; {artefact.get('wanted', ''):.12} is wanted")
    if artefact.get("problem"):
        return Seen(everywhere=False, says=f"{told}; {artefact['problem']}")
    return Seen(everywhere=with_it == answered >= wanted, says=told)


def shown(old_pair: Pair, old: Artefact | None, new_pair: Pair, new: Artefact, gate: Gate) -> Sequence[str]:
    """Both side by side, and what the golden set says of the new one."""
    rows = [("", "in force", "new"), ("calibration", f"{old_pair.calibration:.12}", f"{new_pair.calibration:.12}")]
    rows += [(title, _of(old, tell), _of(new, tell)) for title, tell in TOLD.items()]
    rows.append(("threshold", _threshold(old_pair.threshold, old), _threshold(new_pair.threshold, new)))
    width = max(len(before) for _, before, _ in rows) + 2
    lines = [f"{title:12}  {before:{width}}{after}".rstrip() for title, before, after in rows]
    low, high = gate.interval
    flips = ", ".join(f"{name} {rate:.1%}" for name, rate in gate.flips.items())
    lines.append(f"golden set: accuracy {gate.accuracy:.3f} [{low:.3f}, {high:.3f}], {len(gate.misses)} misses")
    return [*lines, f"decisions that a perturbation flips: {flips}"] if flips else lines


TOLD: dict[str, Callable[[Artefact], str]] = {
    "hash": lambda one: one.sha256[:12],
    "kind": lambda one: one.kind,
    "embedder": lambda one: one.embedder.split("@")[0] or "none needed",
    "to large": lambda one: f"{one.large_share:.1%} expected",
}


def _of(artefact: Artefact | None, tell: Callable[[Artefact], str]) -> str:
    return "unknown" if artefact is None else tell(artefact)


def _threshold(given: float | None, artefact: Artefact | None) -> str:
    if given is not None:
        return f"{given:g}"
    return "its own" if artefact is None else f"{artefact.threshold:g} (its own)"
