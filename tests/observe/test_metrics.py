"""What each event of a request counts as."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from serve_app.deployments.artefacts import Refusal
from serve_app.domain import Attempt, Decision, Novel, Outcome, Reason, SignalState, Tier, TierLoad, Usage
from serve_app.observe.backlog import Waiting
from serve_app.observe.metrics import COUNTERS, GAUGES, HISTOGRAMS, Metric, Metrics
from serve_app.routing.drift import Drift
from tests.fakes import World, make_request, make_score
from tests.observe.common import pair


class Numbers:
    """A backend that keeps what it was told, by metric name and labels."""

    def __init__(self) -> None:
        self.added: dict[tuple[str, tuple[str, ...]], float] = {}
        self.observed: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        self.shown: dict[tuple[str, tuple[str, ...]], float] = {}

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert tuple(labels) == metric.labels
        key = (metric.name.removeprefix("tierwise_"), tuple(labels.values()))
        self.added[key] = self.added.get(key, 0) + value

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert tuple(labels) == metric.labels
        self.observed.setdefault((metric.name.removeprefix("tierwise_"), tuple(labels.values())), []).append(value)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert tuple(labels) == metric.labels
        self.shown[metric.name.removeprefix("tierwise_"), tuple(labels.values())] = value


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


@pytest.fixture
def metrics(numbers: Numbers) -> Metrics:
    return Metrics(numbers)


def test_a_decision_counts_by_tier_and_reason(numbers: Numbers, metrics: Metrics) -> None:
    metrics.decided(Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65, make_score(0.2)))
    metrics.decided(Decision(Tier.LARGE, Reason.FALLBACK_ROUTER_ERROR, 0.65, make_score(None)))
    assert numbers.added == {
        ("decisions_total", ("small", "score_below", "normal")): 1,
        ("decisions_total", ("large", "fallback_router_error", "normal")): 1,
    }
    assert numbers.observed[("score", ("small",))] == [0.2]
    assert ("score", ("large",)) not in numbers.observed


def test_novel_prompts_and_drift_are_told_apart_from_the_rest(numbers: Numbers, metrics: Metrics) -> None:
    metrics.decided(Decision(Tier.LARGE, Reason.NOVELTY, 0.65, make_score(0.6), novel=Novel(0.25, 0.1)))
    metrics.decile(9)
    metrics.drift(Drift(decisions=700, score_psi=0.3, novelty_psi=None, novel_share=None))
    assert numbers.added == {
        ("decisions_total", ("large", "novelty", "normal")): 1,
        ("novel_requests_total", ("large",)): 1,
        ("score_deciles_total", ("10",)): 1,
    }
    assert numbers.shown == {("drift_psi", ("score",)): 0.3}


def test_a_stage_is_timed_where_it_was_asked(numbers: Numbers, metrics: Metrics) -> None:
    timed = replace(make_score(0.2), embed_seconds=0.01, assess_seconds=0.02)
    for state in (SignalState.OK, SignalState.LATE, SignalState.SKIPPED):
        metrics.decided(Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65, replace(timed, assessment_state=state)))
    stages = {labels[0]: values for (name, labels), values in numbers.observed.items() if name == "router_stage_seconds"}
    assert stages == {"embed": [0.01] * 3, "assess": [0.02] * 2}


def test_a_fault_of_a_signal_is_counted(numbers: Numbers, metrics: Metrics) -> None:
    metrics.signal_fault("assessment", SignalState.LATE)
    assert numbers.added == {("signal_faults_total", ("assessment", "late")): 1}


def test_an_attempt_counts_its_tokens_and_dollars(numbers: Numbers, metrics: Metrics) -> None:
    metrics.attempted(Attempt(Tier.SMALL, "m", Outcome.OK, Usage(10, 20, 0), 0.5, 0.0, 0.25, 1.0))
    assert numbers.added == {
        ("attempts_total", ("small", "ok")): 1,
        ("spent_usd_total", ("small",)): 0.5,
        ("tokens_total", ("small", "input")): 10,
        ("tokens_total", ("small", "output")): 20,
    }
    assert numbers.observed == {
        ("gen_ai_server_time_to_first_token_seconds", ("small",)): [0.25],
        ("gen_ai_server_time_per_output_token_seconds", ("small",)): [pytest.approx(0.75 / 19)],
    }


@pytest.mark.parametrize(
    "changes",
    [{"first_token": None}, {"outcome": Outcome.CANCELLED}, {"usage": Usage(10, 1)}, {"usage": Usage(10, 0)}],
    ids=["a plain answer", "one that was cut off", "one token", "none"],
)
def test_only_a_whole_stream_has_a_time_per_token(numbers: Numbers, metrics: Metrics, changes: dict[str, object]) -> None:
    metrics.attempted(replace(Attempt(Tier.SMALL, "m", Outcome.OK, Usage(10, 20), 0.5, 0.0, 0.25, 1.0), **changes))
    assert not [name for name, _ in numbers.observed if "per_output_token" in name]


def test_a_mirrored_answer_counts_apart_from_what_clients_got(numbers: Numbers, metrics: Metrics) -> None:
    metrics.compared(pair("tw-1"), same=False)
    assert numbers.added == {
        ("mirrors_compared_total", ("small", "different")): 1,
        ("mirror_spent_usd_total", ("large",)): 0.00002,
        ("mirror_tokens_total", ("large", "input")): 10,
        ("mirror_tokens_total", ("large", "output")): 5,
    }


def test_queues_are_shown_as_the_engines_report_them_and_not_at_all_without_a_report(numbers: Numbers, metrics: Metrics) -> None:
    metrics.load(Tier.LARGE, TierLoad(replicas=2, waiting=3, running=16, capacity=32, as_of=0.0))
    metrics.load(Tier.SMALL, None)
    large = {"tier_replicas": 2, "tier_waiting": 3, "tier_running": 16, "tier_capacity": 32}
    assert numbers.shown == {**{(name, ("large",)): value for name, value in large.items()}, ("tier_replicas", ("small",)): 0}


async def test_a_request_that_ended_counts_once(numbers: Numbers, metrics: Metrics) -> None:
    world = World()
    await world.pipeline().answer(make_request())
    metrics.finished(world.ledger.records[0])
    assert numbers.added == {("requests_total", ("small", "ok")): 1, ("all_large_usd_total", ()): 0.00005}
    assert numbers.observed == {("gen_ai_server_request_duration_seconds", ("small",)): [0.0], ("router_stage_seconds", ("decide",)): [0.0]}


def test_drops_and_skipped_chunks_are_counted(numbers: Numbers, metrics: Metrics) -> None:
    metrics.dropped(3)
    metrics.skipped_chunk(Tier.LARGE)
    assert numbers.added == {("records_dropped_total", ()): 3, ("skipped_chunks_total", ("large",)): 1}


def test_what_waits_for_the_ledger_is_shown_apart_by_where_it_waits(numbers: Numbers, metrics: Metrics) -> None:
    metrics.backlog("ingress", Waiting(3, 2048))
    metrics.backlog("ledger", Waiting(0, 0))
    assert numbers.shown == {
        ("ledger_backlog_records", ("ingress",)): 3,
        ("ledger_backlog_bytes", ("ingress",)): 2048,
        ("ledger_backlog_records", ("ledger",)): 0,
        ("ledger_backlog_bytes", ("ledger",)): 0,
    }


def test_a_calibration_that_was_refused_counts_by_cause(numbers: Numbers, metrics: Metrics) -> None:
    for why in Refusal:
        metrics.calibration_refused(why)
    assert numbers.added == {("calibration_refused_total", (why,)): 1 for why in ("away", "unknown", "damaged", "unsuitable")}


def test_names_and_buckets_are_well_formed() -> None:
    assert all(metric.name.startswith("tierwise_") and metric.name.endswith("_total") for metric in COUNTERS)
    assert all(metric.buckets and list(metric.buckets) == sorted(set(metric.buckets)) for metric in HISTOGRAMS)
    names = [metric.name for metric in (*COUNTERS, *HISTOGRAMS, *GAUGES)]
    assert len(names) == len(set(names))
    assert {label for metric in (*COUNTERS, *HISTOGRAMS, *GAUGES) for label in metric.labels} <= {
        "tier",
        "reason",
        "mode",
        "outcome",
        "signal",
        "state",
        "stage",
        "kind",
        "limit",
        "decile",
        "verdict",
        "at",
        "why",
    }
