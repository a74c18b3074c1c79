"""What an audit counts while it reads: bounded, however much traffic there is."""

from collections import Counter
from dataclasses import dataclass, field
from math import sqrt
from random import Random
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from serve_app.domain import Tier, Usage
from serve_app.evaluate.audit_input import Bad
from serve_app.observe.cost import PER_MILLION
from serve_app.routing import drift
from serve_app.settings import TokenPrice

T = TypeVar("T")
BINS = 40
BANDED = 12  # examples of the uncertain band
SAMPLED = 300  # prompts that go large, for the clusters
BAD_SHOWN = 10
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one prompt. `by_score`: the score decided, and no rule."""

    id: str
    tier: Tier
    reason: str
    score: float | None
    novel: bool
    by_score: bool


@dataclass(frozen=True, slots=True)
class Example:
    id: str
    text: str
    score: float | None
    tier: Tier


class Reservoir(Generic[T]):
    """Owns a fair sample of what was offered: each item is in it with the same chance."""

    def __init__(self, size: int, random: Random) -> None:
        self._size = size
        self._random = random
        self.offered = 0
        self.kept: list[T] = []

    def offer(self, item: T) -> None:
        self.offered += 1
        if len(self.kept) < self._size:
            self.kept.append(item)
        elif (place := self._random.randrange(self.offered)) < self._size:
            self.kept[place] = item


@dataclass
class Totals:
    """Owns the counts. `bins`: prompts by tier (small, large) and score; `deciles`: by the calibration's `edges`."""

    threshold: float
    margin: float
    prices: dict[Tier, TokenPrice]
    seed: int
    edges: tuple[float, ...]
    prompts: int = 0
    large: int = 0
    novel: int = 0
    banded: int = 0
    by_score: int = 0
    reasons: Counter[tuple[str, Tier]] = field(default_factory=Counter)
    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), dtype=np.int64))
    deciles: list[int] = field(default_factory=lambda: [0] * drift.BINS)
    usage: dict[Tier, Usage] = field(default_factory=lambda: {tier: Usage() for tier in Tier})
    told_answers: int = 0  # prompts whose answer's length the data has
    bad: int = 0
    bad_shown: list[Bad] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = Random(self.seed)
        self.band: Reservoir[Example] = Reservoir(BANDED, random)
        self.hard: Reservoir[Example] = Reservoir(SAMPLED, random)

    def unreadable(self, bad: Bad) -> None:
        self.bad += 1
        if len(self.bad_shown) < BAD_SHOWN:
            self.bad_shown.append(bad)

    def add(self, found: Scored, text: str, prompt_tokens: int, answer_tokens: int, *, told: bool) -> None:
        large = found.tier is Tier.LARGE
        self.prompts += 1
        self.large += large
        self.novel += found.novel
        self.by_score += found.by_score
        self.told_answers += told
        self.reasons[found.reason, found.tier] += 1
        before = self.usage[found.tier]
        self.usage[found.tier] = Usage(before.prompt_tokens + prompt_tokens, before.completion_tokens + answer_tokens)
        if found.score is not None:
            self.bins[int(large), min(int(found.score * BINS), BINS - 1)] += 1
            self.deciles[drift.bin_of(found.score, self.edges)] += 1
        example = Example(found.id, text, found.score, found.tier)
        if found.by_score and found.score is not None and abs(found.score - self.threshold) < self.margin:
            self.banded += 1
            self.band.offer(example)
        if large:
            self.hard.offer(example)

    def dollars(self, tier: Tier | None = None) -> float:
        """What was counted at `tier`'s prices, or, with None, at the prices of the tier that it goes to."""
        return sum(_cost(usage, self.prices[goes if tier is None else tier]) for goes, usage in self.usage.items())

    def drift(self) -> float | None:
        """The population stability index of the scores against the calibration's held-out rows; None where there are too few."""
        return drift.index(self.deciles, [1 / drift.BINS] * drift.BINS) if sum(self.deciles) >= drift.MIN_DECISIONS else None

    def interval(self) -> tuple[float, float]:
        """Of the large tier's share: Wilson's, as if the prompts were a fair sample of the traffic."""
        n, share = self.prompts, self.large / self.prompts
        middle, half = share + Z * Z / (2 * n), Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
        return (middle - half) / (1 + Z * Z / n), (middle + half) / (1 + Z * Z / n)


def _cost(usage: Usage, price: TokenPrice) -> float:
    """Not rounded: it is a sum over many."""
    return (usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / PER_MILLION
