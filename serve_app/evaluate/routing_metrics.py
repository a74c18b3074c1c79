"""How good a ranking of prompts is for routing, as RouteLLM (arXiv 2406.18665v4) defines it. Pure numpy.

The share `f` of prompts with the highest scores goes to the strong model; `quality(f)` is the mean outcome then.

    PGR(f)    = (quality(f) - quality(0)) / (quality(1) - quality(0))     performance gap recovered
    APGR      = the area under PGR over f in [0, 1]                       random: 0.5
    CPT(x)    = the least share f with PGR(f) >= x                        random: x

Every share k/n is looked at, not ten of them. Prompts with equal scores are sent in unknown order, so that each takes the
mean gain of its group: a constant score is then exactly random, and no result depends on the order of a file's rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
RIGHT = 0.5  # a score from here on counts as right where a yes or no is needed
EPSILON = 1e-12
RESAMPLES = 400  # of a measure that is computed anew on each
RESAMPLES_AT_ONCE = 64  # bounds the memory of a bootstrap: this many times the number of rows


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What both models scored on the same prompts, in [0, 1]; shape (rows,) each."""

    weak: Vector
    strong: Vector

    @property
    def gain(self) -> Vector:
        return self.strong - self.weak

    def take(self, index: npt.NDArray[np.integer] | Labels) -> "Outcomes":
        return Outcomes(self.weak[index], self.strong[index])


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def gap_recovered(scores: Vector, outcomes: Outcomes) -> Vector:
    """PGR at the shares 0/n, 1/n, ... n/n. All NaN where the strong model is not better: then there is no gap."""
    total = float(outcomes.gain.sum())
    if total <= EPSILON:
        return np.full(len(scores) + 1, np.nan)
    return np.concatenate(([0.0], np.cumsum(_in_order(scores, outcomes.gain)))) / total


def apgr(scores: Vector, outcomes: Outcomes) -> float:
    """The area under PGR, by the trapezoidal rule over every share."""
    recovered = gap_recovered(scores, outcomes)
    return float((recovered[1:] + recovered[:-1]).mean() / 2)


def cpt(scores: Vector, outcomes: Outcomes, gap: float) -> float:
    """The least share k/n that recovers `gap` (0.8 for CPT(80 %)) of the difference; NaN where there is no gap."""
    return _first(gap_recovered(scores, outcomes) >= gap - EPSILON)


def quality(scores: Vector, outcomes: Outcomes) -> Vector:
    """Mean outcome at the shares 0/n ... n/n."""
    steps = np.cumsum(_in_order(scores, outcomes.gain)) / len(scores)
    return float(outcomes.weak.mean()) + np.concatenate(([0.0], steps))


def share_for_quality(scores: Vector, outcomes: Outcomes, kept: float) -> float:
    """The least share that keeps `kept` (0.95) of the strong model's quality; NaN where none does."""
    return _first(quality(scores, outcomes) >= kept * float(outcomes.strong.mean()) - EPSILON)


def cost_saved(share: float, weak_price: float, strong_price: float) -> float:
    """The part of the all-strong cost that is saved when `share` goes to the strong model, tokens being equal."""
    return (1.0 - share) * (1.0 - weak_price / strong_price)


def roc_auc(scores: Vector, positive: Labels) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where either is missing."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def strong_wins(outcomes: Outcomes) -> Labels:
    return outcomes.gain > EPSILON


def weak_is_wrong(outcomes: Outcomes) -> Labels:
    return outcomes.weak < RIGHT


def calibration_error(predicted: Vector, outcome: Vector, bins: int = 10) -> float:
    """Expected calibration error over `bins` groups of equal size: |mean predicted - mean outcome|, weighted."""
    groups = np.array_split(np.argsort(predicted, kind="stable"), bins)
    gaps = [len(group) * abs(float(predicted[group].mean() - outcome[group].mean())) for group in groups if len(group)]
    return float(sum(gaps) / len(predicted))


def random_scores(rows: int) -> Vector:
    """The expectation over all random orders: one tie."""
    return np.zeros(rows)


def oracle_scores(outcomes: Outcomes) -> Vector:
    """The best order there is: by what the strong model really gains."""
    return outcomes.gain


def bootstrap(scores: Mapping[str, Vector], outcomes: Outcomes, *, resamples: int = 2000, seed: int = 0) -> dict[str, Vector]:
    """APGR of each ranking on the same resamples of rows, shape (resamples,): their differences are paired.

    A ranking is fixed: what is resampled is which rows it is judged by. NaN where a resample has no gap.
    """
    random = np.random.default_rng(seed)
    rows = len(outcomes.weak)
    groups = {name: _Grouped.of(values, outcomes.gain) for name, values in scores.items()}
    found: dict[str, list[Vector]] = {name: [] for name in scores}
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, resamples - start)
        counts = random.multinomial(rows, np.full(rows, 1.0 / rows), size=size).astype(np.float64)
        for name, grouped in groups.items():
            found[name].append(grouped.apgr(counts))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def interval(value: float, resampled: Vector) -> Interval:
    """`value` with the 2.5 and 97.5 percentiles of `resampled`, which may hold NaN."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(known, (2.5, 97.5))
    return Interval(value, float(low), float(high))


def apgr_intervals(
    scores: Mapping[str, Vector], outcomes: Outcomes, *, resamples: int = 2000, seed: int = 0
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """(APGR of each ranking, difference of each other ranking from the first, paired)."""
    drawn = bootstrap(scores, outcomes, resamples=resamples, seed=seed)
    values = {name: apgr(one, outcomes) for name, one in scores.items()}
    first, *others = scores
    alone = {name: interval(values[name], drawn[name]) for name in scores}
    return alone, {name: interval(values[name] - values[first], drawn[name] - drawn[first]) for name in others}


def resampled(
    measures: Mapping[str, Callable[[Vector, Outcomes], float]],
    scores: Vector,
    outcomes: Outcomes,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Any measure with its interval, all on the same resamples of rows; slower than `bootstrap`, which knows APGR only."""
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(resamples):
        index = random.integers(0, len(scores), len(scores))
        some, out = scores[index], outcomes.take(index)
        for name, measure in measures.items():
            drawn[name].append(measure(some, out))
    return {name: interval(measure(scores, outcomes), np.array(drawn[name])) for name, measure in measures.items()}


def macro(values: Sequence[float]) -> float:
    """The mean over benchmarks, each counting once; NaN entries (no gap) are left out."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


@dataclass(frozen=True)
class _Grouped:
    """Rows in sending order and where each group of equal scores starts: sorted once, weighed by every resample."""

    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    gain: Vector

    @staticmethod
    def of(scores: Vector, gain: Vector) -> "_Grouped":
        order = np.argsort(-scores, kind="stable")
        changes = np.flatnonzero(np.diff(scores[order])) + 1
        return _Grouped(order, np.concatenate((np.zeros(1, dtype=np.intp), changes)), gain[order])

    def apgr(self, counts: Vector) -> Vector:
        """`counts`: how often each row was drawn, shape (resamples, rows)."""
        drawn = counts[:, self.order]
        width = np.add.reduceat(drawn, self.starts, axis=1) / drawn.sum(axis=1, keepdims=True)
        height = np.cumsum(np.add.reduceat(drawn * self.gain, self.starts, axis=1), axis=1)
        before = np.concatenate((np.zeros((len(height), 1)), height[:, :-1]), axis=1)
        total = height[:, -1]
        area = (width * (height + before)).sum(axis=1) / 2
        return np.where(total > EPSILON, area / np.where(total > EPSILON, total, 1.0), np.nan)


def _in_order(scores: Vector, gain: Vector) -> Vector:
    """Gains from the highest score to the lowest, each group of equal scores at its mean."""
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=gain) / sizes
    return np.repeat(means, sizes)


def _first(reached: Labels) -> float:
    """The share of the first true entry of shares 0/n ... n/n."""
    return float(np.argmax(reached)) / (len(reached) - 1) if reached.any() else float("nan")
