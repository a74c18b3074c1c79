"""Every metric of tierwise: name, unit, labels. In replicas they are Ray's, and appear as `ray_tierwise_*` on every node.

What can be computed from them stands in `cluster/monitoring/rules/recording.yml`: the tiers' shares, and dollars saved
(`all_large_usd - spent_usd`, which may be negative and so is no counter). Money over the fleet is the cost exporter's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from serve_app.domain import Attempt, Decision, Feedback, MirrorPair, Outcome, Record, SignalState, Tier, TierLoad, Usage
from serve_app.observe.backlog import Waiting
from serve_app.resilience import BreakerState
from serve_app.routing.drift import Drift


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


SCORE_BUCKETS = tuple(i / 20 for i in range(1, 21))
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# OpenTelemetry's semantic conventions for generative AI: gen_ai.server.request.duration and .time_to_first_token.
# gen_ai.server.time_per_output_token has its own buckets.
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

DECISIONS = Metric("tierwise_decisions_total", "Decisions made.", ("tier", "reason", "mode"))
SCORES = Metric("tierwise_score", "Complexity scores, 0 to 1.", ("tier",), SCORE_BUCKETS)
DECILES = Metric(
    "tierwise_score_deciles_total",
    "Scores by the tenth of the calibration's held-out rows that they fall in; even without drift.",
    ("decile",),
)
NOVEL = Metric("tierwise_novel_requests_total", "Decisions on prompts that are unlike what the calibration was fitted on.", ("tier",))
SIGNAL_FAULTS = Metric("tierwise_signal_faults_total", "Signals that were late or failed.", ("signal", "state"))
STAGES = Metric("tierwise_router_stage_seconds", "Time of one stage of a decision, in seconds.", ("stage",), STAGE_BUCKETS)
REQUESTS = Metric("tierwise_requests_total", "Requests that ended.", ("tier", "outcome"))
ATTEMPTS = Metric("tierwise_attempts_total", "Generations that ended.", ("tier", "outcome"))
RETRIES = Metric("tierwise_retries_total", "Tries at the tier that had just failed.", ("tier",))
FALLBACKS = Metric("tierwise_fallbacks_total", "Tries at the other tier after a failure, by the tier that is asked.", ("tier",))
TOKENS = Metric("tierwise_tokens_total", "Tokens, as the engines count them.", ("tier", "kind"))
DURATION = Metric("tierwise_gen_ai_server_request_duration_seconds", "Whole request, in seconds.", ("tier",), DURATION_BUCKETS)
TTFT = Metric("tierwise_gen_ai_server_time_to_first_token_seconds", "From arrival to the first token, in seconds.", ("tier",), TTFT_BUCKETS)
TPOT = Metric(
    "tierwise_gen_ai_server_time_per_output_token_seconds",
    "Time of each token after the first, averaged over a stream, in seconds.",
    ("tier",),
    TPOT_BUCKETS,
)
SPENT = Metric("tierwise_spent_usd_total", "Dollars by token prices.", ("tier",))
ALL_LARGE = Metric("tierwise_all_large_usd_total", "Dollars had every request been large.", ())
DROPPED = Metric("tierwise_records_dropped_total", "Ledger records dropped because a queue was full.", ())
SKIPPED_CHUNKS = Metric("tierwise_skipped_chunks_total", "Malformed engine chunks that were skipped.", ("tier",))
ESCALATIONS = Metric("tierwise_escalations_total", "Early exits: the small tier doubted itself and the large one answered.", ())
REFUSALS = Metric("tierwise_refusals_total", "Requests refused before a decision, by the limit that they met.", ("limit",))
MIRRORS = Metric("tierwise_mirrors_total", "What became of answers that could have been mirrored.", ("state",))
COMPARED = Metric("tierwise_mirrors_compared_total", "Mirrored answers, by whether both models wrote the same text.", ("tier", "verdict"))
FEEDBACK = Metric("tierwise_feedback_total", "Answers that somebody found good (0.5 or more) or bad.", ("tier", "verdict"))
CALIBRATION_REFUSED = Metric(
    "tierwise_calibration_refused_total", "Tries to put a live calibration into force that failed, by cause; the old one stays.", ("why",)
)
MIRROR_TOKENS = Metric("tierwise_mirror_tokens_total", "Tokens of mirrored answers, not in tokens_total.", ("tier", "kind"))
MIRROR_SPENT = Metric("tierwise_mirror_spent_usd_total", "Dollars by token prices for mirrored answers, not in spent_usd_total.", ("tier",))

DRIFT = Metric(
    "tierwise_drift_psi", "Population stability index of this replica's last hour: of its scores, of novel prompts.", ("signal",)
)
THRESHOLD = Metric("tierwise_threshold", "The threshold in force, with what capacity adds to it.", ())
BREAKERS = Metric("tierwise_breaker_open", "1 while a tier's breaker keeps requests away, 0.5 while it probes, 0 otherwise.", ("tier",))
IN_FLIGHT = Metric("tierwise_in_flight", "Generations of this replica that wait for a tier or are answered by it.", ("tier",))
# The engines' own queues, summed over a tier's replicas. Every ingress replica shows the same: take the largest, never the sum.
REPLICAS = Metric("tierwise_tier_replicas", "Replicas of a tier that answered within the last seconds.", ("tier",))
WAITING = Metric("tierwise_tier_waiting", "Sequences that wait inside a tier's engines.", ("tier",))
RUNNING = Metric("tierwise_tier_running", "Sequences that a tier's engines are generating.", ("tier",))
CAPACITY = Metric("tierwise_tier_capacity", "Sequences that a tier's engines can generate at a time.", ("tier",))
# A record waits in its ingress until the ledger has committed it, and meanwhile also there: never add the two places up.
BACKLOG = Metric("tierwise_ledger_backlog_records", "Records that wait: in an ingress for the ledger, there to be written.", ("at",))
BACKLOG_BYTES = Metric("tierwise_ledger_backlog_bytes", "Clients' text in the records that wait, in bytes: queue_mib bounds it.", ("at",))

COUNTERS = (
    FALLBACKS,
    DECISIONS,
    DECILES,
    NOVEL,
    SIGNAL_FAULTS,
    REQUESTS,
    ATTEMPTS,
    RETRIES,
    TOKENS,
    SPENT,
    ALL_LARGE,
    DROPPED,
    SKIPPED_CHUNKS,
    ESCALATIONS,
    REFUSALS,
    MIRRORS,
    COMPARED,
    FEEDBACK,
    CALIBRATION_REFUSED,
    MIRROR_TOKENS,
    MIRROR_SPENT,
)
HISTOGRAMS = (SCORES, STAGES, DURATION, TTFT, TPOT)
GAUGES = (DRIFT, THRESHOLD, BREAKERS, IN_FLIGHT, REPLICAS, WAITING, RUNNING, CAPACITY, BACKLOG, BACKLOG_BYTES)


OPENNESS = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}


class Backend(Protocol):
    """Where numbers go: Ray's metrics in a replica, a plain dict in tests."""

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None: ...

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None: ...

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None: ...


class RayBackend:
    """`ray.serve.metrics`: objects of prometheus_client inside a replica would not be exported."""

    def __init__(self) -> None:
        from ray.serve import metrics as ray_metrics  # noqa: PLC0415 - this module is also read without Ray

        self._counters: dict[str, Any] = {m.name: ray_metrics.Counter(m.name, description=m.help, tag_keys=m.labels) for m in COUNTERS}
        self._histograms: dict[str, Any] = {
            m.name: ray_metrics.Histogram(m.name, description=m.help, boundaries=list(m.buckets), tag_keys=m.labels) for m in HISTOGRAMS
        }
        self._gauges: dict[str, Any] = {m.name: ray_metrics.Gauge(m.name, description=m.help, tag_keys=m.labels) for m in GAUGES}

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        if value > 0:  # Ray's counters refuse zero
            self._counters[metric.name].inc(value, tags=dict(labels))

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        self._histograms[metric.name].observe(value, tags=dict(labels))

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        self._gauges[metric.name].set(value, tags=dict(labels))


class Metrics:
    """The pipeline's observer: what each event of a request counts as."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def decided(self, decision: Decision) -> None:
        tier = decision.tier.value
        self._backend.add(DECISIONS, 1, {"tier": tier, "reason": decision.reason.value, "mode": decision.mode.value})
        if decision.novel is not None:
            self._backend.add(NOVEL, 1, {"tier": tier})
        score = decision.score
        if score.value is not None:
            self._backend.observe(SCORES, score.value, {"tier": tier})
        if score.embed_seconds > 0:  # a remembered score asked nobody
            self._backend.observe(STAGES, score.embed_seconds, {"stage": "embed"})
            if score.assessment_state is not SignalState.SKIPPED:  # zeros of those that were not asked would hide the others
                self._backend.observe(STAGES, score.assess_seconds, {"stage": "assess"})

    def decile(self, number: int) -> None:
        """`number` counts from 0, the label from 1."""
        self._backend.add(DECILES, 1, {"decile": str(number + 1)})

    def drift(self, drift: Drift) -> None:
        """What is not known is not shown."""
        for signal, value in (("score", drift.score_psi), ("novelty", drift.novelty_psi)):
            if value is not None:
                self._backend.set(DRIFT, value, {"signal": signal})

    def signal_fault(self, signal: str, state: SignalState) -> None:
        self._backend.add(SIGNAL_FAULTS, 1, {"signal": signal, "state": state.value})

    def attempted(self, attempt: Attempt) -> None:
        tier = {"tier": attempt.tier.value}
        self._backend.add(ATTEMPTS, 1, {**tier, "outcome": attempt.outcome.value})
        self._backend.add(SPENT, attempt.cost_usd, tier)
        for kind, tokens in _kinds(attempt.usage):
            self._backend.add(TOKENS, tokens, {**tier, "kind": kind})
        if attempt.first_token is not None:
            self._backend.observe(TTFT, attempt.first_token, tier)
        if (each := seconds_per_token(attempt)) is not None:
            self._backend.observe(TPOT, each, tier)

    def retried(self, tier: Tier) -> None:
        self._backend.add(RETRIES, 1, {"tier": tier.value})

    def fell_back(self, tier: Tier) -> None:
        self._backend.add(FALLBACKS, 1, {"tier": tier.value})

    def finished(self, record: Record) -> None:
        tier = {"tier": record.decision.tier.value}
        self._backend.add(REQUESTS, 1, {**tier, "outcome": record.outcome.value})
        self._backend.add(ALL_LARGE, record.all_large_usd, {})
        self._backend.observe(DURATION, record.total_seconds, tier)
        self._backend.observe(STAGES, record.overhead_seconds, {"stage": "decide"})

    def skipped_chunk(self, tier: Tier) -> None:
        self._backend.add(SKIPPED_CHUNKS, 1, {"tier": tier.value})

    def escalated(self) -> None:
        self._backend.add(ESCALATIONS, 1, {})

    def refused(self, why: str) -> None:
        self._backend.add(REFUSALS, 1, {"limit": why})

    def mirrored(self, what: str) -> None:
        self._backend.add(MIRRORS, 1, {"state": what})

    def compared(self, pair: MirrorPair, *, same: bool) -> None:
        self._backend.add(COMPARED, 1, {"tier": pair.tier.value, "verdict": "same" if same else "different"})
        asked = {"tier": pair.mirror_tier.value}
        self._backend.add(MIRROR_SPENT, pair.mirror_cost_usd, asked)
        for kind, tokens in _kinds(pair.mirror_usage):
            self._backend.add(MIRROR_TOKENS, tokens, {**asked, "kind": kind})

    def told(self, feedback: Feedback) -> None:
        self._backend.add(FEEDBACK, 1, {"tier": feedback.tier.value, "verdict": "good" if feedback.good else "bad"})

    def calibration_refused(self, why: str) -> None:
        self._backend.add(CALIBRATION_REFUSED, 1, {"why": why})

    def threshold(self, value: float) -> None:
        self._backend.set(THRESHOLD, value, {})

    def breaker(self, tier: Tier, state: BreakerState) -> None:
        self._backend.set(BREAKERS, OPENNESS[state], {"tier": tier.value})

    def in_flight(self, tier: Tier, generations: int) -> None:
        self._backend.set(IN_FLIGHT, generations, {"tier": tier.value})

    def load(self, tier: Tier, load: TierLoad | None) -> None:
        """A tier that does not report has no replica as far as anyone knows, and nothing is said of its queues."""
        labels = {"tier": tier.value}
        self._backend.set(REPLICAS, 0 if load is None else load.replicas, labels)
        if load is not None:
            for metric, value in ((WAITING, load.waiting), (RUNNING, load.running), (CAPACITY, load.capacity)):
                self._backend.set(metric, value, labels)

    def backlog(self, at: Literal["ingress", "ledger"], waiting: Waiting) -> None:
        self._backend.set(BACKLOG, waiting.records, {"at": at})
        self._backend.set(BACKLOG_BYTES, waiting.text_bytes, {"at": at})

    def dropped(self, records: int) -> None:
        self._backend.add(DROPPED, records, {})


def seconds_per_token(attempt: Attempt) -> float | None:
    """Of a stream that ended well, as OpenTelemetry defines it; None where there is no token after the first."""
    after = attempt.usage.completion_tokens - 1
    if attempt.first_token is None or attempt.outcome is not Outcome.OK or after < 1:
        return None
    return max(0.0, attempt.ended - attempt.first_token) / after


def _kinds(usage: Usage) -> Sequence[tuple[str, int]]:
    counts = (("input", usage.prompt_tokens), ("output", usage.completion_tokens), ("cached", usage.cached_tokens))
    return [count for count in counts if count[1]]
