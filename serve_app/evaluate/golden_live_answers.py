"""What a golden run collects: one `Answer` for each request. Plain values; seconds count from the begin of the run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from serve_app.domain import Tier, Usage


class Arm(StrEnum):
    """Each golden prompt is sent to the router and, for the baseline, to the large tier by its name."""

    ROUTED = "routed"
    ALL_LARGE = "all_large"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the endpoint says of its decision. `usage` and `cost_usd` are of all attempts together."""

    decision_id: str
    tier: Tier
    reason: str
    score: float | None
    threshold: float | None
    attempts: int
    usage: Usage
    cost_usd: float
    saved_usd: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. `failure` is short and holds no text of an answer; without one there is a receipt.

    `first_token` counts from `started`, `overhead` is how long the endpoint took to decide.
    `usage` is the engine's own count of the answer that came.
    """

    id: str
    arm: Arm
    started: float
    ended: float
    failure: str | None = None
    first_token: float | None = None
    usage: Usage = field(default_factory=Usage)
    receipt: Receipt | None = None
    mode: str = "normal"
    overhead: float = 0.0
    text: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass(frozen=True, slots=True)
class Run:
    """All that came of a run. `planned` is how many requests it was to send; `stopped` says why it did not."""

    answers: tuple[Answer, ...]
    planned: int
    stopped: str | None = None

    def of(self, arm: Arm) -> dict[str, Answer]:
        """The answers of one arm that did not fail, by the prompt's id."""
        return {one.id: one for one in self.answers if one.arm is arm and one.receipt is not None}

    @property
    def pairs(self) -> list[tuple[Answer, Answer]]:
        """Routed and all large, where both were answered."""
        large = self.of(Arm.ALL_LARGE)
        return [(one, large[name]) for name, one in self.of(Arm.ROUTED).items() if name in large]

    @property
    def failures(self) -> Sequence[Answer]:
        return [one for one in self.answers if one.failure is not None]

    @property
    def seconds(self) -> float:
        """From the first request to the end of the last."""
        if not self.answers:
            return 0.0
        return max(one.ended for one in self.answers) - min(one.started for one in self.answers)
