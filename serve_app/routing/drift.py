"""Whether live traffic still looks like what the calibration was fitted on: the population stability index. Pure; time is an argument.

Two indices. Of the scores: ten bins which held-out rows of the calibration fill evenly, so that a tenth is expected in each. Of
the texts: the share of novel prompts, beyond what is expected; which says only that texts became unlike the fitted ones, not how.
By custom an index below 0.1 is no change, above 0.25 one that asks for a new calibration. `cluster/monitoring/rules` computes
the same over the fleet, with the same numbers.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from serve_app.domain import Decision, Score, SignalState
from serve_app.routing.features import from_text
from serve_app.routing.score import Artefact

BINS = 10
EVEN = tuple(step / BINS for step in range(1, BINS))
EPSILON = 1e-3  # an empty bin counts as this share: its logarithm would be infinite
EXPECTED_NOVEL = 0.02  # share of held-out rows that counts as novel at most
MINUTES = 60
MIN_ROWS = 100
MIN_DECISIONS = 500  # fewer say nothing: the index of 500 draws from the expected shares is 0.02 on average
FAULTS = (SignalState.LATE, SignalState.FAILED)
DESCRIBED = "score_deciles"  # where an artefact's description holds its edges


def deciles(scores: Sequence[float]) -> list[float]:
    """The edges of ten bins that `scores` fill evenly: of rows that were not fitted on, and that a score decides in serving."""
    return [round(float(edge), 6) for edge in np.percentile(np.asarray(scores, dtype=np.float64), [10 * step for step in range(1, BINS)])]


def described(scores: Sequence[float], texts: Sequence[str]) -> dict[str, list[float]]:
    """What an artefact's description tells of its held-out rows; nothing where there are few.

    Code and mathematics are not among them: serving sends those to the large tier without a score.
    """
    kept = [score for score, text in zip(scores, texts, strict=True) if not from_text(text).math_or_code]
    return {DESCRIBED: deciles(kept)} if len(kept) >= MIN_ROWS else {}


def edges(artefact: Artefact) -> tuple[float, ...]:
    """Of the artefact; even steps where it does not tell, which is right for a score that is a rank."""
    told = artefact.description.get(DESCRIBED)
    rising = isinstance(told, list) and len(told) == BINS - 1 and all(low <= high for low, high in pairwise(told))
    return tuple(map(float, told)) if rising and told else EVEN


def watched(score: Score) -> float | None:
    """What is compared: the part of the score that the calibration's rows have too, without a rating. None without any."""
    if score.embedding_state in FAULTS:
        return None
    if score.embedding is not None:
        return score.embedding
    return score.value if score.assessment is None else None


def bin_of(value: float, edges: Sequence[float]) -> int:
    """From 0 to BINS - 1; a value at an edge belongs above it."""
    return bisect_right(edges, value)


def index(counts: Sequence[int], expected: Sequence[float]) -> float | None:
    """The population stability index of `counts` against shares that sum to 1. None without any count."""
    total = sum(counts)
    if not total:
        return None
    shares = np.maximum(np.asarray(counts, dtype=np.float64) / total, EPSILON)
    wanted = np.maximum(np.asarray(expected, dtype=np.float64), EPSILON)
    return float(((shares - wanted) * np.log(shares / wanted)).sum())


def novelty_index(novel: int, total: int) -> float | None:
    """Of two bins, novel and not; 0 where no more are novel than expected."""
    if total and novel / total <= EXPECTED_NOVEL:
        return 0.0
    return index([novel, total - novel], [EXPECTED_NOVEL, 1.0 - EXPECTED_NOVEL])


@dataclass(frozen=True, slots=True)
class Drift:
    """What one replica saw in the last hour. An index is None while there are fewer than `MIN_DECISIONS`, or nothing tells novelty."""

    decisions: int
    score_psi: float | None
    novelty_psi: float | None
    novel_share: float | None


@dataclass(slots=True)
class _Minute:
    minute: int
    bins: Counter[int] = field(default_factory=Counter)
    told: int = 0  # of them with a novelty
    novel: int = 0


class Window:
    """Owns the counts of the last hour, minute by minute: bounded, whatever the traffic. Times are Unix time in seconds."""

    def __init__(self) -> None:
        self._minutes: deque[_Minute] = deque(maxlen=MINUTES)

    def add(self, bin_number: int, *, novel: bool | None, now: float) -> None:
        """One decision by a score; `novel` is None where the calibration does not tell. A clock that goes back: the last minute."""
        minute = int(now // 60)
        if not self._minutes or self._minutes[-1].minute < minute:
            self._minutes.append(_Minute(minute))
        last = self._minutes[-1]
        last.bins[bin_number] += 1
        last.told += novel is not None
        last.novel += bool(novel)

    def seen(self, now: float) -> Drift:
        since = int(now // 60) - MINUTES
        kept = [one for one in self._minutes if one.minute > since]
        counts = [sum(one.bins[number] for one in kept) for number in range(BINS)]
        told, novel = sum(one.told for one in kept), sum(one.novel for one in kept)
        enough = sum(counts) >= MIN_DECISIONS
        return Drift(
            decisions=sum(counts),
            score_psi=index(counts, [1 / BINS] * BINS) if enough else None,
            novelty_psi=novelty_index(novel, told) if enough else None,
            novel_share=novel / told if told else None,
        )


def bin_of_decision(decision: Decision, artefact: Artefact) -> int | None:
    """The bin of the decision's score; None where no score was made, or another calibration made it."""
    value = watched(decision.score)
    if value is None or decision.score.calibration != artefact.sha256:
        return None
    return bin_of(value, edges(artefact))
