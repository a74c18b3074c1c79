"""Recorded traffic under other thresholds: what it would have cost, how it would have been split and, where known, how good it was.

Only decisions that the threshold made move (`History.by_threshold`); all others stay where they were. One that moves keeps its
tokens and takes the other tier's price: what the other model would have written is not known. Replayed is the normal mode: in
shadow and canary mode it is the router's choice that counts, not who answered in its place.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from serve_app.domain import Json, Tier
from serve_app.evaluate.history import Flags, Floats, History
from serve_app.evaluate.routing_metrics import Interval
from serve_app.settings import TokenPrice

Places = npt.NDArray[np.intp]
RESAMPLES = 400
AT_ONCE = 16  # resamples: bounds the memory of the bootstrap
GRID = tuple(round(step / 20, 2) for step in range(21))
MOST = 101  # thresholds
PER = 1000


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold would have given, with 95 % bootstrap intervals over decisions. Dollars for 1,000 requests.

    `quality` is the mean judged outcome of the tier that would have answered, `agreement` the share of labels met; None: nothing
    was judged or labelled. `moved` counts decisions that would have gone to another tier than the router chose.
    """

    threshold: float
    large_share: Interval
    usd: Interval
    saved: Interval
    quality: Interval | None
    agreement: Interval | None
    to_large: int
    to_small: int


@dataclass(frozen=True, slots=True)
class Replay:
    """`recorded`: dollars for 1,000 requests as they were paid. `in_force`: the threshold of the last decision that it made.

    `other_scores`: decisions of a calibration that was replaced; a threshold on today's scores says nothing of them, and they stay.

    `feedback`: by the tier that answered, how many answers people spoke of, and the mean of what they said.
    """

    rows: int
    movable: int
    other_scores: int
    judged: int
    labelled: int
    recorded_usd: float
    in_force: float | None
    points: tuple[Point, ...]
    feedback: Json


def replay(history: History, thresholds: Sequence[float], small: TokenPrice, *, seed: int = 0, resamples: int = RESAMPLES) -> Replay:
    """`small`: the small tier's price, for what moves to it; the large tier's is in the records. The threshold in force comes along."""
    by_threshold = history.by_threshold
    movable = by_threshold & _of_last_calibration(history, by_threshold)
    in_force = _in_force(history, movable)
    grid = np.unique(np.asarray([*thresholds, *([] if in_force is None else [in_force])], dtype=np.float64))
    place = _places(history, movable, grid)
    sums = _resampled(_columns(history, small), place, len(grid), np.random.default_rng(seed), resamples)
    return Replay(
        rows=len(history),
        movable=int(movable.sum()),
        other_scores=int(by_threshold.sum() - movable.sum()),
        judged=int(_judged(history).sum()),
        labelled=int((~np.isnan(history.expected)).sum()),
        recorded_usd=float(history.numbers["cost_usd"].mean() * PER),
        in_force=in_force,
        points=tuple(_point(index, float(threshold), place, history, sums) for index, threshold in enumerate(grid)),
        feedback=_feedback(history),
    )


def _places(history: History, movable: Flags, grid: Floats) -> Places:
    """How many thresholds of the grid send a decision to the large tier: the first `place` ones. None or all where it cannot move."""
    fixed = np.where(history.chosen_large, len(grid), 0)
    return np.where(movable, np.searchsorted(grid, history.numbers["score"], side="right"), fixed)


def _of_last_calibration(history: History, by_threshold: Flags) -> Flags:
    """Whose score is of the calibration that made the last score here."""
    names = history.words["calibration"]
    scored = names[by_threshold]
    of_last: Flags = names == (scored[-1] if len(scored) else "")
    return of_last


def _in_force(history: History, movable: Flags) -> float | None:
    thresholds = history.numbers["threshold"][movable]
    return None if not len(thresholds) or np.isnan(thresholds[-1]) else float(thresholds[-1])


def _judged(history: History) -> Flags:
    judged: Flags = ~np.isnan(history.weak) & ~np.isnan(history.strong)
    return judged


def _feedback(history: History) -> Json:
    """Only of what was answered: what people would have said of the other tier's answer nobody knows."""
    said = ~np.isnan(history.feedback)
    by_tier = {Tier.SMALL: said & ~history.large, Tier.LARGE: said & history.large}
    return {
        tier.value: {"decisions": int(which.sum()), "mean": float(history.feedback[which].mean())}
        for tier, which in by_tier.items()
        if which.any()
    }


def _columns(history: History, small: TokenPrice) -> dict[str, tuple[Floats, Floats]]:
    """What is summed over decisions, by the tier that each goes to: at the small one, at the large one."""
    at_small, at_large = costs(history, small)
    none, one, all_large = np.zeros(len(history)), np.ones(len(history)), history.numbers["all_large_usd"]
    columns = {"large": (none, one), "usd": (at_small, at_large), "rows": (one, one), "all": (all_large, all_large)}
    if (judged := _judged(history)).any():
        known = judged.astype(np.float64)
        columns |= {"quality": (np.where(judged, history.weak, 0.0), np.where(judged, history.strong, 0.0)), "judged": (known, known)}
    if (labelled := ~np.isnan(history.expected)).any():
        known = labelled.astype(np.float64)
        columns |= {"agreement": (known * (history.expected == 0.0), known * (history.expected == 1.0)), "labelled": (known, known)}
    return columns


def costs(history: History, small: TokenPrice) -> tuple[Floats, Floats]:
    """Of each decision at the small and at the large tier: as recorded at the one that answered, its tokens' price at the other."""
    numbers = history.numbers
    priced = (numbers["prompt_tokens"] * small.input + numbers["completion_tokens"] * small.output) / 1_000_000
    return np.where(history.large, priced, numbers["cost_usd"]), np.where(history.large, numbers["cost_usd"], numbers["all_large_usd"])


def _resampled(
    columns: dict[str, tuple[Floats, Floats]], place: Places, thresholds: int, rng: np.random.Generator, resamples: int
) -> dict[str, Floats]:
    """The sums as they are, then those of each resample: (1 + resamples, thresholds) each.

    Decisions of one place go the same way under every threshold, so that a resample is summed by place, once for all thresholds.
    """
    order = np.argsort(place, kind="stable")
    ends = np.searchsorted(place[order], np.arange(thresholds + 2))
    stacked = np.stack([side for pair in columns.values() for side in pair], axis=1)[order]
    rows = len(place)
    parts = [_by_place(np.ones((1, rows)), stacked, ends)]
    for first in range(0, resamples, AT_ONCE):
        drawn = [np.bincount(rng.integers(0, rows, rows), minlength=rows) for _ in range(min(AT_ONCE, resamples - first))]
        parts.append(_by_place(np.stack(drawn).astype(np.float64), stacked, ends))
    up_to = np.concatenate(parts, axis=1).cumsum(axis=0)  # places 0..k: at the small tier under every threshold from k on
    small, large = up_to[:-1], up_to[-1:] - up_to[:-1]
    return {name: (small[:, :, 2 * at] + large[:, :, 2 * at + 1]).T for at, name in enumerate(columns)}


def _by_place(weights: Floats, stacked: Floats, ends: npt.NDArray[np.intp]) -> Floats:
    """Shape (places, resamples, columns)."""
    return np.stack([weights[:, start:end] @ stacked[start:end] for start, end in pairwise(ends)])


def _point(index: int, threshold: float, place: Places, history: History, sums: dict[str, Floats]) -> Point:
    usd, rows = sums["usd"][:, index], sums["rows"][:, index]
    before, now = history.chosen_large, place > index
    return Point(
        threshold=threshold,
        large_share=_interval(sums["large"][:, index] / rows),
        usd=_interval(usd / rows * PER),
        saved=_interval(1.0 - _ratio(usd, sums["all"][:, index])),
        quality=_mean(sums, "quality", "judged", index),
        agreement=_mean(sums, "agreement", "labelled", index),
        to_large=int((now & ~before).sum()),
        to_small=int((before & ~now).sum()),
    )


def _mean(sums: dict[str, Floats], name: str, count: str, index: int) -> Interval | None:
    return _interval(_ratio(sums[name][:, index], sums[count][:, index])) if name in sums else None


def _ratio(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by, as in a resample without a judged row."""
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


def _interval(values: Floats) -> Interval:
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def as_json(found: Replay) -> Json:
    """NaN is no JSON: it becomes null."""
    return {name: _without_nan(value) for name, value in asdict(found).items()}


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def as_lines(found: Replay) -> list[str]:
    """A table for a person; the line of the threshold in force is marked."""
    lines = [
        f"{found.rows} decisions, {found.movable} of them made by the threshold ({found.movable / found.rows:.1%}); the others stay",
        f"as paid: {found.recorded_usd:.6f} dollars for 1,000 requests; threshold in force: {_shown(found.in_force)}",
    ]
    known = [name for name, count in (("quality", found.judged), ("agreement", found.labelled)) if count]
    lines.append(f"judged: {found.judged}, labelled: {found.labelled}; intervals are 95 %, bootstrap over decisions")
    if found.other_scores:
        lines.append(f"{found.other_scores} decisions were scored by a calibration that was replaced: they stay; `--since` leaves them out")
    if found.feedback:
        lines.append(f"feedback, as answered: {felt(found)}")
    titles = ["threshold", "large share", "dollars / 1,000", "saved of all-large", *known, "to large", "to small"]
    cells = [_cells(point, known, point.threshold == found.in_force) for point in found.points]
    widths = [max(len(row[column]) for row in [titles, *cells]) for column in range(len(titles))]
    return lines + ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in [titles, *cells]]


def felt(found: Replay) -> str:
    """What people said of either tier's answers."""
    return "; ".join(f"{tier} {one['mean']:.3f} (of {one['decisions']:,})" for tier, one in found.feedback.items())


def _cells(point: Point, known: list[str], marked: bool) -> list[str]:
    usd = f"{point.usd.value:.6f} [{point.usd.low:.6f}, {point.usd.high:.6f}]"
    quality = [str(getattr(point, name)) for name in known]
    threshold = f"{'> ' if marked else ''}{point.threshold:g}"
    return [threshold, str(point.large_share), usd, str(point.saved), *quality, str(point.to_large), str(point.to_small)]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
