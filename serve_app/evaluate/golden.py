"""The golden prompts against decisions: accuracy with its interval, and every miss. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve_app.domain import Tier
from serve_app.evaluate.labelled import Labelled

Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Miss:
    id: str
    expected: Tier
    got: Tier
    score: float | None
    reason: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Report:
    total: int
    correct: int
    large_share: float
    misses: tuple[Miss, ...]

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson, 1927)."""
        return wilson(self.correct, self.total)


@dataclass(frozen=True, slots=True)
class Routed:
    tier: Tier
    score: float | None
    reason: str


def wilson(successes: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion; also sensible at 0 and at `total`."""
    if total == 0:
        return 0.0, 1.0
    p, z2 = successes / total, Z_95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def compare(rows: Sequence[Labelled], routed: Mapping[str, Routed]) -> Report:
    """Hold each row against its decision; `routed` is keyed by the rows' ids."""
    misses = tuple(
        Miss(row.id, row.expected_tier, got.tier, got.score, got.reason, row.prompt)
        for row in rows
        if (got := routed[row.id]).tier is not row.expected_tier
    )
    large = sum(routed[row.id].tier is Tier.LARGE for row in rows)
    return Report(len(rows), len(rows) - len(misses), large / len(rows), misses)
