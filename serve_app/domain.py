"""What flows through tierwise: plain, frozen values. No I/O, no framework.

Times are seconds, money is US dollars, scores and ratings lie in [0, 1] (0 = easy, 1 = hard).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Json = dict[str, Any]
Kind = Literal["chat", "completion"]


class Tier(StrEnum):
    SMALL = "small"
    LARGE = "large"

    @property
    def other(self) -> "Tier":
        return Tier.LARGE if self is Tier.SMALL else Tier.SMALL


class Reason(StrEnum):
    """Why a tier was chosen: a closed set, used as a metric label."""

    SCORE_ABOVE = "score_above"
    SCORE_BELOW = "score_below"
    EXPLICIT_MODEL = "explicit_model"
    EXPLICIT_TIER = "explicit_tier"
    HEURISTIC_MATH_CODE = "heuristic_math_code"
    GUARD_CONTEXT = "guard_context"
    GUARD_CAPABILITY = "guard_capability"
    GUARD_POLICY = "guard_policy"
    CONVERSATION = "conversation"
    TOOL_LOOP = "tool_loop"
    NOVELTY = "novelty"
    CAPACITY = "capacity"
    ESCALATED_LOW_CONFIDENCE = "escalated_low_confidence"
    DEGRADED = "degraded"
    TIER_UNAVAILABLE = "tier_unavailable"
    FALLBACK_ENGINE_ERROR = "fallback_engine_error"
    FALLBACK_ROUTER_ERROR = "fallback_router_error"


class Mode(StrEnum):
    NORMAL = "normal"
    SHADOW = "shadow"
    CANARY = "canary"
    MIRROR = "mirror"
    PROBE = "probe"


class SignalState(StrEnum):
    """What became of one signal. `SKIPPED` is a choice (not needed), `LATE` and `FAILED` are faults and are counted."""

    OK = "ok"
    SKIPPED = "skipped"
    LATE = "late"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Features:
    """Cheap facts read from the text and the request, without a model."""

    chars: int
    turns: int
    code: bool
    math: bool
    asks_code: bool
    asks_math: bool
    tools: bool = False
    json_schema: bool = False
    images: bool = False

    @property
    def math_or_code(self) -> bool:
        return self.code or self.math or self.asks_code or self.asks_math


@dataclass(frozen=True, slots=True)
class SelfAssessment:
    """The router LLM's rating: `rating` in [0, 1], `probs` of the digits 0-9 (sums to 1)."""

    rating: float
    probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One complexity score and what it was made of. `value` is None when no signal answered."""

    value: float | None
    embedding: float | None = None
    embedding_state: SignalState = SignalState.SKIPPED
    assessment: float | None = None
    assessment_state: SignalState = SignalState.SKIPPED
    calibration: str = ""
    embed_seconds: float = 0.0
    assess_seconds: float = 0.0
    p_small: float | None = None  # that the small tier answers well, then the large one: from a `gain` calibration only
    p_large: float | None = None
    novelty: float | None = None  # 0: like the rows that were fitted; 1: unlike all of them, scored at the base rate
    embedding_weight: float | None = None  # of the embedding beside the rating, where both are part of the score


NO_SCORE = Score(value=None)


@dataclass(frozen=True, slots=True)
class Novel:
    """That a prompt is unlike what the calibration was fitted on: its novelty is above `above`.

    `lowered` is how far below the threshold its score still goes to the large tier; negative: how far above it to the small one.
    """

    above: float
    lowered: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Which tier answers, and why. `threshold` is the one in force for this request."""

    tier: Tier
    reason: Reason
    threshold: float
    score: Score = NO_SCORE
    mode: Mode = Mode.NORMAL
    features: Features | None = None
    allowed: tuple[Tier, ...] = (Tier.SMALL, Tier.LARGE)  # by the hard guards
    conversation: float | None = None  # the hardest of the turns before, where they were looked at
    shift: float = 0.0  # what capacity added to the threshold; `threshold` has it in it
    chosen: Tier | None = None  # what the router chose, where shadow or canary mode lets another tier answer
    settings: str = ""  # hash of the settings in force
    own_threshold: bool = False  # the request or its key named the threshold
    novel: Novel | None = None  # where it is; `threshold` does not have `lowered` in it
    guard_seconds: float = 0.0
    conversation_seconds: float = 0.0

    @property
    def margin(self) -> float | None:
        """Distance of the score from the threshold; negative means small."""
        return None if self.score.value is None else self.score.value - self.threshold


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: a key's public name and what it may do. `key` is None where no key is asked for."""

    key: str | None = None
    admin: bool = True
    tiers: tuple[Tier, ...] = (Tier.SMALL, Tier.LARGE)
    threshold: float | None = None


ANYONE = Client()


@dataclass(frozen=True, slots=True)
class Trace:
    """A request's place in a trace (W3C Trace Context): ids in hexadecimal, 32 and 16 digits; `parent_id` is the client's span."""

    trace_id: str
    parent_id: str | None
    span_id: str
    sampled: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed client request. `body` is what an engine gets, without `model` and `stream_options`.

    `text` is the last user turn, `earlier` holds those before it, oldest first. In a tool loop the last message is a tool's.
    """

    id: str
    kind: Kind
    body: Mapping[str, Any]
    text: str
    features: Features
    model: str
    stream: bool = False
    include_usage: bool = False
    explicit_tier: Tier | None = None
    explicit_reason: Reason = Reason.EXPLICIT_MODEL
    threshold: float | None = None
    debug: bool = False
    session: str | None = None
    earlier: tuple[str, ...] = ()
    tool_loop: bool = False
    client: Client = ANYONE
    trace: Trace | None = None

    @property
    def affinity(self) -> str | None:
        """Under which name a session keeps its replica: two keys' sessions are never the same one."""
        return self.session if self.session is None or self.client.key is None else f"{self.client.key}/{self.session}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Exact token counts, as the engine reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Outcome(StrEnum):
    """How an attempt or a request ended."""

    OK = "ok"
    REJECTED = "rejected"  # the engine refused the request: the client's fault
    REFUSED = "refused"  # our queues were full: backpressure, nobody's fault
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"  # the client left
    ESCALATED = "escalated"  # early exit: the small tier doubted itself and nothing of its answer went out


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a model was of the first `tokens` tokens of its answer; all figures are natural logarithms of probabilities.

    `mean` is over all of them, `low` is the lowest mean of any few in a row, `margin` the mean lead over the runner-up.
    """

    tokens: int
    mean: float
    low: float
    margin: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One generation on one tier. Times are seconds from the request's arrival."""

    tier: Tier
    model: str
    outcome: Outcome
    usage: Usage
    cost_usd: float
    started: float
    first_token: float | None
    ended: float
    error: str | None = None
    confidence: Confidence | None = None  # where early exit looked at it


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger keeps of one request: one row, and one per attempt."""

    id: str
    created: float
    kind: Kind
    stream: bool
    decision: Decision
    outcome: Outcome
    attempts: tuple[Attempt, ...]
    cost_usd: float
    all_large_usd: float
    overhead_seconds: float
    total_seconds: float
    prompt_hash: str
    prompt_chars: int
    session: str | None = None
    key: str | None = None
    prompt: Mapping[str, Any] | None = None  # the request's body, only where prompts are stored
    trace: Trace | None = None

    @property
    def saved_usd(self) -> float:
        return round(self.all_large_usd - self.cost_usd, 12)

    @property
    def usage(self) -> Usage:
        """Tokens of every attempt together."""
        return Usage(
            prompt_tokens=sum(a.usage.prompt_tokens for a in self.attempts),
            completion_tokens=sum(a.usage.completion_tokens for a in self.attempts),
            cached_tokens=sum(a.usage.cached_tokens for a in self.attempts),
        )


@dataclass(frozen=True, slots=True)
class MirrorPair:
    """Two answers to one prompt: what the client got, and what the other tier says. For judging later; never on a request's path."""

    decision_id: str
    created: float
    session: str | None
    key: str | None
    prompt: Mapping[str, Any]
    tier: Tier
    answer: str
    mirror_tier: Tier
    mirror_model: str
    mirror_answer: str
    mirror_usage: Usage
    mirror_cost_usd: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """How good somebody found an answer: `score` in [0, 1]; `created` is when it was said, Unix time.

    `by` is the key that says it, None where no key is asked for; `key`, `session` and `tier` are the decision's.
    """

    decision_id: str
    created: float
    tier: Tier
    score: float
    comment: str | None = None
    by: str | None = None
    key: str | None = None
    session: str | None = None

    @property
    def good(self) -> bool:
        return self.score >= 0.5


@dataclass(frozen=True, slots=True)
class DecisionQuery:
    """Which decisions are listed, newest first. None is any; times are Unix time, `since` and scores inclusive, `until` exclusive.

    `before` is the (created, id) of the last decision of the page before.
    """

    limit: int
    since: float | None = None
    until: float | None = None
    tier: str | None = None
    reason: str | None = None
    outcome: str | None = None
    mode: str | None = None
    session: str | None = None
    key: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    before: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class TierLoad:
    """An engine's own queues, summed over its replicas. `as_of` is Unix time.

    Serve wants `target` replicas, and `starting` more are on their way. `cold_start` is how long the last start took that a replica
    told of, `cold_eta` how long it takes until the next one runs, while one starts or none does; seconds, None if unknown.
    """

    replicas: int
    waiting: int
    running: int
    capacity: int
    as_of: float
    cold_eta: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    starting: int = 0
    target: int | None = None
    cold_start: float | None = None
