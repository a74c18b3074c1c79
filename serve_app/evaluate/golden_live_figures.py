"""From the answers of a golden run to its figures. Pure.

Ratios are routed to all large over the prompts that both arms answered; their 95 % intervals resample prompts, so that they are paired.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.domain import Tier, Usage
from serve_app.evaluate import golden
from serve_app.evaluate.golden_live_answers import Answer, Arm, Run
from serve_app.evaluate.golden_live_cost import Fleet
from serve_app.evaluate.labelled import Labelled
from serve_app.evaluate.routing_metrics import RESAMPLES, Interval, interval

Values = npt.NDArray[np.float64]
Measure = Callable[[Values], Values]  # of resampled rows, shape (resamples, rows), to one value each
EVERYTHING = "all"
GROUPS = (  # name, arm, tier
    ("routed, small", Arm.ROUTED, Tier.SMALL),
    ("routed, large", Arm.ROUTED, Tier.LARGE),
    ("routed", Arm.ROUTED, None),
    ("all large", Arm.ALL_LARGE, None),
)


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds of `count` requests."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Group:
    """The answered requests of one arm, or of one tier in it. `latency` is until the end of the answer, `ttft` until its first token."""

    name: str
    latency: Spread
    ttft: Spread
    usage: Usage


@dataclass(frozen=True, slots=True)
class Dollars:
    """By token prices, from the receipts. `same_tokens` is what the routed answers' tokens would have cost at the large tier.

    `all_large` is what the baseline cost, whose answers have a length of their own; None where none was measured. `saved` is held
    against it over the prompts that both arms answered, `saved_same_tokens` needs no baseline.
    """

    routed: float
    same_tokens: float
    all_large: float | None
    saved: Interval | None
    saved_same_tokens: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """`routing` is None where no prompt was answered. `uneven` counts answers whose receipt tells other tokens than their usage."""

    routing: golden.Report | None
    groups: tuple[Group, ...]
    dollars: Dollars
    fleet: Fleet
    fleet_saved: Interval | None
    ratios: Mapping[str, Mapping[str, Interval]]  # by which prompts, by measure
    uneven: int
    modes: tuple[str, ...]


def figures(rows: Sequence[Labelled], run: Run, fleet: Fleet, *, seed: int, resamples: int = RESAMPLES) -> Figures:
    """`fleet` is the run's, by `golden_live_cost.charge`."""
    pairs = run.pairs
    draws = _draws(len(pairs), seed, resamples)
    held = [tuple(fleet.held.get((one.id, one.arm), 0.0) for one in pair) for pair in pairs]
    fleet_ratio = ratio(*_columns(held), _sums, draws) if pairs else None
    return Figures(
        routing=_routing(rows, run.of(Arm.ROUTED)),
        groups=tuple(group for wanted in GROUPS if (group := _group(run, *wanted)) is not None),
        dollars=_dollars(run, draws),
        fleet=fleet,
        fleet_saved=_saved(fleet_ratio),
        ratios=_ratios(pairs, seed, resamples),
        uneven=sum(_uneven(one) for one in run.answers),
        modes=tuple(sorted({one.mode for one in run.of(Arm.ROUTED).values()} - {"normal"})),
    )


def _routing(rows: Sequence[Labelled], answered: Mapping[str, Answer]) -> golden.Report | None:
    """Prompts without an answer have no decision that could be right or wrong."""
    told = {name: one.receipt for name, one in answered.items() if one.receipt is not None}
    routed = {name: golden.Routed(one.tier, one.score, one.reason) for name, one in told.items()}
    return golden.compare([row for row in rows if row.id in routed], routed) if routed else None


def _uneven(one: Answer) -> bool:
    """A receipt counts every attempt: of one alone it must tell what the engine told."""
    told = one.receipt
    return told is not None and told.attempts == 1 and _sides(told.usage) != _sides(one.usage)


def _sides(usage: Usage) -> tuple[int, int]:
    return usage.prompt_tokens, usage.completion_tokens


def _group(run: Run, name: str, arm: Arm, tier: Tier | None) -> Group | None:
    there = [one for one in run.of(arm).values() if one.receipt is not None and tier in (None, one.receipt.tier)]
    if not there:
        return None
    usage = Usage(sum(one.usage.prompt_tokens for one in there), sum(one.usage.completion_tokens for one in there))
    return Group(name, spread([one.seconds for one in there]), spread(_first_tokens(there)), usage)


def _first_tokens(answers: Sequence[Answer]) -> list[float]:
    """An answer that told no token at all began when it ended."""
    return [one.seconds if one.first_token is None else one.first_token for one in answers]


def spread(seconds: Sequence[float]) -> Spread:
    """Percentiles by linear interpolation; of fewer than 100 requests the 99th is close to the slowest."""
    p50, p95, p99 = np.quantile(seconds, [0.5, 0.95, 0.99]).tolist()
    return Spread(len(seconds), float(np.mean(seconds)), p50, p95, p99)


def _dollars(run: Run, draws: npt.NDArray[np.intp]) -> Dollars:
    receipts = [one.receipt for one in run.of(Arm.ROUTED).values() if one.receipt is not None]
    routed = sum(one.cost_usd for one in receipts)
    same = sum(one.cost_usd + one.saved_usd for one in receipts)
    baseline = [one.receipt.cost_usd for one in run.of(Arm.ALL_LARGE).values() if one.receipt is not None]
    paid = [tuple(one.receipt.cost_usd for one in pair if one.receipt is not None) for pair in run.pairs]
    found = ratio(*_columns(paid), _sums, draws) if paid else None
    return Dollars(
        routed=routed,
        same_tokens=same,
        all_large=sum(baseline) if baseline else None,
        saved=_saved(found),
        saved_same_tokens=1.0 - routed / same if same > 0 else None,
    )


def _ratios(pairs: Sequence[tuple[Answer, Answer]], seed: int, resamples: int) -> dict[str, dict[str, Interval]]:
    """Of all prompts, and of those that the router sent small."""
    small = [pair for pair in pairs if pair[0].receipt is not None and pair[0].receipt.tier is Tier.SMALL]
    found: dict[str, dict[str, Interval]] = {}
    for name, group in ((EVERYTHING, pairs), ("small", small)):
        if not group:
            continue
        draws = _draws(len(group), seed, resamples)
        seconds = _columns([tuple(one.seconds for one in pair) for pair in group])
        first = _columns([tuple(_first_tokens(pair)) for pair in group])
        timed = {f"latency {how}": ratio(*seconds, measure, draws) for how, measure in MEASURES.items()}
        found[name] = {**timed, **{f"TTFT {how}": ratio(*first, measure, draws) for how, measure in MEASURES.items()}}
    return found


def ratio(ours: Values, theirs: Values, measure: Measure, draws: npt.NDArray[np.intp]) -> Interval:
    """`measure` of ours over that of theirs; not finite where theirs is nothing, and a draw of such prompts alone is left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = measure(ours[np.newaxis]) / measure(theirs[np.newaxis])
        drawn = measure(ours[draws]) / measure(theirs[draws])
    return interval(float(value[0]), np.where(np.isfinite(drawn), drawn, np.nan))


def _sums(rows: Values) -> Values:
    return np.asarray(rows.sum(axis=1))


def _means(rows: Values) -> Values:
    return np.asarray(rows.mean(axis=1))


def _quantiles(share: float) -> Measure:
    def measure(rows: Values) -> Values:
        return np.asarray(np.quantile(rows, share, axis=1))

    return measure


MEASURES: dict[str, Measure] = {"mean": _means, "p50": _quantiles(0.5), "p95": _quantiles(0.95), "p99": _quantiles(0.99)}


def _saved(cost: Interval | None) -> Interval | None:
    """None where there is no baseline, or it cost nothing."""
    if cost is None or not math.isfinite(cost.value):
        return None
    return Interval(1.0 - cost.value, 1.0 - cost.high, 1.0 - cost.low)


def _draws(rows: int, seed: int, resamples: int) -> npt.NDArray[np.intp]:
    """Which rows each resample holds: the same for every measure of these rows."""
    return np.random.default_rng(seed).integers(0, max(rows, 1), (resamples, rows))


def _columns(pairs: Sequence[tuple[float, ...]]) -> tuple[Values, Values]:
    both = np.array(pairs, dtype=np.float64)
    return both[:, 0], both[:, 1]
