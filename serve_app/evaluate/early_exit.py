"""Does the small tier's doubt tell hard prompts from easy ones? The evidence for `live.early_exit`, from a running endpoint.

The statistic is chosen and its threshold fitted on the fit part of the labelled prompts; every figure beside them is of the golden part.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np
import numpy.typing as npt

from serve_app import logprobs
from serve_app.domain import Confidence, Json, Tier
from serve_app.errors import RequestError, TierwiseError
from serve_app.evaluate import labelled
from serve_app.evaluate.golden import wilson
from serve_app.evaluate.labelled import Labelled
from serve_app.remote import Progress, ask, connect
from serve_app.routing.cascade import Watch, asked

STATISTICS = ("mean", "low", "margin")
MAX_TOKENS = 64
WORKERS = 4  # a few at a time: an engine answers them in one batch
RESAMPLES = 1000
Values = npt.NDArray[np.float64]
Interval = tuple[float, float]
TwoLabels = tuple[Values, Values]  # of the prompts labelled small, and of those labelled large


@dataclass(frozen=True, slots=True)
class Answered:
    """How sure the small tier was of its answer to one labelled prompt."""

    expected: Tier
    first: Confidence
    whole: Confidence


Stretch = Callable[[Answered], Confidence]


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic over one stretch of the answer. A share is of the golden prompts with that label that fall below `threshold`."""

    name: str
    tokens: int
    auc_fit: float
    auc: float
    interval: Interval
    threshold: float
    small_escalated: float
    small_interval: Interval
    large_caught: float
    large_interval: Interval


@dataclass(frozen=True, slots=True)
class Report:
    """`first` and `whole` hold one line per statistic; `best` is the one of `first` that was best on the fit part.

    `unstreamed` is the same statistic over the whole answer, for answers that are not streamed.
    """

    fit: int
    golden: int
    tokens: int
    target_share: float
    first: tuple[Statistic, ...]
    whole: tuple[Statistic, ...]
    best: Statistic
    unstreamed: Statistic

    @property
    def tells(self) -> bool:
        """Whether the interval of the best statistic lies above chance."""
        return self.best.interval[0] > 0.5


def measure(url: str, api_key: str, progress: Progress, *, tokens: int, target_share: float) -> Report:
    """Ask the small tier every labelled prompt and hold its doubt against the labels.

    Raises `RequestError` for an argument out of range and `TierwiseError` when the endpoint does not answer, or without log-probabilities.
    """
    if not 1 <= tokens <= MAX_TOKENS:
        raise RequestError(f"--tokens: must be from 1 to {MAX_TOKENS}, got {tokens}")
    if not 0 < target_share < 1:
        raise RequestError(f"--target-share: must be between 0 and 1, got {target_share}")
    rows = labelled.first()  # as many as tell; each is an answer of an engine
    with connect(url, api_key) as client:
        answers = dict(zip((row.id for row in rows), _ask_all(client, rows, tokens, progress), strict=True))
    fit, golden = ([answers[row.id] for row in part] for part in labelled.split(rows))
    return judge(fit, golden, tokens=tokens, target_share=target_share)


def _ask_all(client: httpx.Client, rows: list[Labelled], tokens: int, progress: Progress) -> list[Answered]:
    """After the first failure the prompts that nobody has begun with are dropped."""
    pool = ThreadPoolExecutor(WORKERS)
    try:
        waiting = [pool.submit(_answer, client, row, tokens) for row in rows]
        return [future.result() for future in progress(waiting, "asking")]
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(client: httpx.Client, row: Labelled, tokens: int) -> Answered:
    body: Json = {"model": Tier.SMALL.value, "messages": [{"role": "user", "content": row.prompt}]}
    body = asked("chat", {**body, "max_tokens": MAX_TOKENS, "temperature": 0})
    found = logprobs.of_body(ask(client, "POST", "/v1/chat/completions", body))
    if not found:
        raise TierwiseError(f"{client.base_url}: the small tier gave no log-probabilities")
    first, whole = Watch(tokens), Watch()
    first.add(found)
    whole.add(found)
    return Answered(row.expected_tier, first.confidence(), whole.confidence())


def judge(fit: Sequence[Answered], golden: Sequence[Answered], *, tokens: int, target_share: float) -> Report:
    """Every statistic over the first tokens and over the whole answer. Both parts need prompts of both labels."""

    def line(name: str, stretch: Stretch, most: int) -> Statistic:
        fitted, held_out = _values(fit, stretch, name), _values(golden, stretch, name)
        return _statistic(name, most, fitted, held_out, threshold_for(fitted[0], target_share))

    first = tuple(line(name, _first, tokens) for name in STATISTICS)
    whole = tuple(line(name, _whole, MAX_TOKENS) for name in STATISTICS)
    best = max(first, key=lambda one: one.auc_fit)
    unstreamed = whole[first.index(best)]
    return Report(len(fit), len(golden), tokens, target_share, first, whole, best, unstreamed)


def _first(answer: Answered) -> Confidence:
    return answer.first


def _whole(answer: Answered) -> Confidence:
    return answer.whole


def _values(part: Sequence[Answered], stretch: Stretch, name: str) -> TwoLabels:
    small, large = (
        np.array([getattr(stretch(answer), name) for answer in part if answer.expected is tier], dtype=np.float64) for tier in Tier
    )
    return small, large


def _statistic(name: str, tokens: int, fit: TwoLabels, golden: TwoLabels, threshold: float) -> Statistic:
    small, large = golden
    fallen, caught = int((small < threshold).sum()), int((large < threshold).sum())
    return Statistic(
        name=name,
        tokens=tokens,
        auc_fit=auc(*fit),
        auc=auc(small, large),
        interval=auc_interval(small, large, np.random.default_rng(0)),
        threshold=threshold,
        small_escalated=fallen / len(small),
        small_interval=wilson(fallen, len(small)),
        large_caught=caught / len(large),
        large_interval=wilson(caught, len(large)),
    )


def threshold_for(small: Values, share: float) -> float:
    """The threshold below which at most `share` of the prompts labelled small fall; rounded down, so that what is printed holds."""
    return math.floor(float(np.sort(small)[int(share * len(small))]) * 1e4) / 1e4


def auc(small: Values, large: Values) -> float:
    """How often a prompt labelled large has the lower value of a random pair (area under the ROC curve); a tie counts half."""
    ordered = np.sort(small)
    above = 2 * len(ordered) - np.searchsorted(ordered, large, "left") - np.searchsorted(ordered, large, "right")
    return float(above.mean() / (2 * len(ordered)))


def auc_interval(small: Values, large: Values, rng: np.random.Generator) -> Interval:
    """95 % of the areas of resampled prompts, each label by itself (percentile bootstrap)."""
    areas = [auc(rng.choice(small, len(small)), rng.choice(large, len(large))) for _ in range(RESAMPLES)]
    low, high = np.quantile(areas, (0.025, 0.975))
    return float(low), float(high)


def as_text(report: Report) -> list[str]:
    """The report as lines: a table, and what it comes to."""
    best = report.best
    verdict = (
        f"early_exit: {{enabled: true, tokens: {report.tokens}, statistic: {best.name}, "
        f"threshold: {best.threshold}, whole_threshold: {report.unstreamed.threshold}}}"
    )
    if not report.tells:
        verdict = f"leave early exit off: {best.name} tells large from small no better than chance (its interval reaches 0.5)"
    return [
        f"{report.fit} prompts to fit on, {report.golden} golden; at most {report.target_share:.1%} of the small ones may be sent on",
        f"{'tokens':8} {'statistic':9} {'fit AUC':>7} {'AUC':>5}  {'95 % interval':13} {'threshold':>10} {'small':>6} {'large':>6}",
        *(_as_line(line) for line in (*report.first, *report.whole)),
        f"best on the fit part, over the first {report.tokens} tokens: {best.name}; {_shares(best)}",
        f"the same over whole answers, of up to {MAX_TOKENS} tokens: {_shares(report.unstreamed)}",
        verdict,
    ]


def _shares(line: Statistic) -> str:
    small = f"{line.small_escalated:.1%} ({line.small_interval[0]:.1%}-{line.small_interval[1]:.1%}) of the golden prompts labelled small"
    large = f"{line.large_caught:.1%} ({line.large_interval[0]:.1%}-{line.large_interval[1]:.1%}) of those labelled large"
    return f"below {line.threshold} fall {small} and {large}"


def _as_line(line: Statistic) -> str:
    low, high = line.interval
    return (
        f"{line.tokens:<8} {line.name:9} {line.auc_fit:7.3f} {line.auc:.3f}  {low:.3f}-{high:.3f}   "
        f"{line.threshold:10.4f} {line.small_escalated:6.1%} {line.large_caught:6.1%}"
    )
