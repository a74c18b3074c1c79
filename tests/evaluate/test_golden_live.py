"""What the figures of a golden run mean, on made-up answers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Tier, Usage
from serve_app.errors import TierwiseError
from serve_app.evaluate.golden_live_answers import Arm
from serve_app.evaluate.golden_live_cost import charge, hourly, shares
from serve_app.evaluate.golden_live_figures import spread
from serve_app.evaluate.golden_live_floors import checks
from serve_app.evaluate.golden_live_judge import Verdicts, judged, quality
from serve_app.evaluate.judge import NoReference, Undecided
from serve_app.evaluate.judge_pairs import Asked, Verdict
from serve_app.settings import parse
from serve_app.settings.golden import EndpointFloors
from tests.evaluate.golden_runs import ROWS, a_run, answer, failed, figures_of, pairs

# figures


def test_percentiles_are_of_the_times_themselves() -> None:
    found = spread([float(number) for number in range(101)])
    assert (found.count, found.mean, found.p50, found.p95, found.p99) == (101, 50.0, 50.0, 95.0, 99.0)


def test_each_tier_and_each_arm_has_times_and_tokens_of_its_own() -> None:
    groups = {group.name: group for group in figures_of(pairs()).groups}
    assert {name: group.latency.count for name, group in groups.items()} == {
        "routed, small": 4,
        "routed, large": 4,
        "routed": 8,
        "all large": 8,
    }
    assert groups["routed, small"].latency.mean == pytest.approx(4.0)  # the 1st, 3rd, 5th and 7th second
    assert groups["routed"].ttft.p50 == pytest.approx(2.25)
    assert groups["all large"].latency.p50 == pytest.approx(9.0)
    assert groups["routed, small"].usage == Usage(40, 80)


def test_a_ratio_that_every_prompt_has_is_certain() -> None:
    for name in ("all", "small"):
        found = figures_of(pairs()).ratios[name]
        assert set(found) == {f"{what} {how}" for what in ("latency", "TTFT") for how in ("mean", "p50", "p95", "p99")}
        for one in found.values():
            assert (one.value, one.low, one.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_ratio_that_differs_between_prompts_has_an_interval_around_it() -> None:
    made = [answer(row.id, Arm.ROUTED, Tier.SMALL, took=1.0 + number) for number, row in enumerate(ROWS)]
    made += [answer(row.id, Arm.ALL_LARGE, Tier.LARGE, took=5.0) for row in ROWS]
    one = figures_of(a_run(*made)).ratios["all"]["latency mean"]
    assert one.value == pytest.approx(0.9)
    assert one.low < one.value < one.high


def test_savings_are_held_against_the_baseline_of_the_same_prompts() -> None:
    alone = answer("alone", Arm.ROUTED, Tier.SMALL, cost=100.0)
    run = a_run(*pairs(cost=2.0).answers, alone, failed("alone", Arm.ALL_LARGE))
    one = figures_of(run).dollars
    assert one.saved is not None
    assert (one.saved.value, one.saved.low, one.saved.high) == pytest.approx((0.75, 0.75, 0.75))
    assert (one.routed, one.same_tokens, one.all_large) == pytest.approx((116.0, 72.0, 64.0))
    assert one.saved_same_tokens == pytest.approx(1 - 116 / 72)


def test_savings_that_differ_between_prompts_have_an_interval_around_them() -> None:
    made = [answer(row.id, Arm.ROUTED, row.expected_tier, cost=1.0 + 7.0 * (number % 2)) for number, row in enumerate(ROWS)]
    made += [answer(row.id, Arm.ALL_LARGE, Tier.LARGE, cost=8.0) for row in ROWS]
    one = figures_of(a_run(*made)).dollars.saved
    assert one is not None
    assert one.value == pytest.approx(1 - 4.5 / 8)
    assert one.low < one.value < one.high


def test_without_a_baseline_the_receipts_say_what_was_saved() -> None:
    found = figures_of(a_run(*(one for one in pairs(cost=2.0).answers if one.arm is Arm.ROUTED)))
    assert (found.dollars.saved, found.dollars.all_large, found.ratios, found.fleet_saved) == (None, None, {}, None)
    assert found.dollars.saved_same_tokens == pytest.approx(0.75)


def test_a_prompt_without_an_answer_is_neither_right_nor_wrong() -> None:
    run = a_run(answer("p0", Arm.ROUTED, Tier.SMALL), answer("p1", Arm.ROUTED, Tier.SMALL), failed("p2"))
    report = figures_of(run).routing
    assert report is not None
    assert (report.total, report.correct, [miss.id for miss in report.misses]) == (2, 1, ["p1"])
    assert figures_of(a_run(failed("p0"))).routing is None


def test_a_receipt_that_tells_other_tokens_is_counted_unless_it_sums_attempts() -> None:
    one = answer("p0", Arm.ROUTED, Tier.SMALL)
    assert one.receipt is not None
    other = replace(one, usage=Usage(10, 21))
    escalated = replace(other, receipt=replace(one.receipt, attempts=2))
    assert [figures_of(a_run(each)).uneven for each in (one, other, escalated)] == [0, 1, 0]


# instance-hours


def test_a_second_that_two_requests_share_is_half_of_each() -> None:
    first, second, later = ("p0", Arm.ROUTED), ("p0", Arm.ALL_LARGE), ("p1", Arm.ROUTED)
    assert shares({later: (10.0, 12.0), second: (1.0, 2.0), first: (0.0, 3.0)}) == pytest.approx({first: 2.5, second: 0.5, later: 2.0})


Spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.sampled_from(Tier)), min_size=1, max_size=12)


@given(Spans)
def test_whatever_overlaps_the_fleet_is_charged_exactly_once(spans: list[tuple[int, int, Tier]]) -> None:
    arms = list(Arm)
    answers = [answer(f"p{n}", arms[n % 2], tier, at=at, took=took) for n, (at, took, tier) in enumerate(spans)]
    run, rates = a_run(*answers), {"small": 2.0, "large": 10.0, "router": 3.0, "gateway": 1.0, "unused": 0.5}
    fleet = charge(run, rates)
    assert sum(fleet.usd.values()) == pytest.approx(16.5 * run.seconds / 3600)
    busy = len({second for at, took, tier in spans if tier is Tier.LARGE for second in range(at, at + took)})
    assert fleet.busy_s["large"] == pytest.approx(busy)
    assert all(dollars >= -1e-12 for dollars in fleet.usd.values())


def test_a_request_is_with_the_router_until_it_is_decided_and_then_with_its_tier() -> None:
    small = answer("p0", Arm.ROUTED, Tier.SMALL, at=0.0, took=36.0, overhead=18.0)
    large = answer("p0", Arm.ALL_LARGE, Tier.LARGE, at=36.0, took=72.0)
    found = figures_of(a_run(small, large), rates={"small": 100.0, "large": 1000.0, "router": 50.0})
    assert (found.fleet.of(Arm.ROUTED), found.fleet.of(Arm.ALL_LARGE)) == pytest.approx((0.75, 20.0))
    assert found.fleet.usd == pytest.approx(
        {"small": 0.5, "small_idle": 2.5, "large_baseline": 20.0, "large_idle": 10.0, "router": 0.25, "router_idle": 1.25}
    )
    assert found.fleet_saved is not None
    assert found.fleet_saved.value == pytest.approx(1 - 0.75 / 20)


def test_the_fleet_is_the_least_that_holds_every_replica() -> None:
    settings = parse({"profile": "g6e"})
    one, two = hourly(settings, {}), hourly(settings, {"small": 2, "large": 1})
    assert (one["small"], one["large"], one["router"]) == pytest.approx((1.861, 10.493, 1.861))
    assert two == {**one, "small": pytest.approx(2 * 1.861)}
    assert sum(hourly(parse({"profile": "local"}), {}).values()) == 0.0


# floors


@pytest.mark.parametrize(
    ("floors", "missed"),
    [
        ({"accuracy": 1.0, "p99_ttft_s": 4.0, "saved": 0.875}, []),
        ({"p99_ttft_s": 3.9}, ["p99 TTFT in seconds"]),
        ({"saved": 0.876}, ["saved by token prices"]),
        ({}, []),
    ],
)
def test_each_floor_is_held_against_its_figure(floors: dict[str, float], missed: list[str]) -> None:
    run = pairs()
    found = checks(EndpointFloors(**floors), run, figures_of(run))
    assert [one.name for one in found if not one.holds] == missed
    assert len(found) == len(floors) + 1


def test_a_miss_and_a_failure_miss_their_floors() -> None:
    run = a_run(*pairs().answers[:-2], answer("p7", Arm.ROUTED, Tier.SMALL), failed("p7", Arm.ALL_LARGE))
    found = checks(EndpointFloors(accuracy=0.9, failed=0.05), run, figures_of(run))
    assert [(one.name, one.holds) for one in found] == [("accuracy", False), ("failed", False)]
    assert [one.holds for one in checks(EndpointFloors(accuracy=0.8, failed=0.07), run, figures_of(run))] == [True, True]


def test_a_figure_that_the_run_does_not_have_misses_its_floor() -> None:
    run = a_run()
    found = checks(EndpointFloors(accuracy=0.0, p99_ttft_s=9.0, saved=0.0), run, figures_of(run))
    assert [one.holds for one in found] == [False] * 4


# quality


class Scripted:
    """A judge that answers from a table, by the prompt's id; what is not in it has no reference."""

    name, worth = "scripted", "what the table says"

    def __init__(self, table: dict[str, Verdict | Exception]) -> None:
        self.table = table
        self.seen: list[tuple[str, str, str]] = []

    async def judge(self, asked: Asked, first: str, second: str) -> Verdict:
        self.seen.append((asked.text, first, second))
        said = self.table.get(asked.decision_id, NoReference())
        if isinstance(said, Exception):
            raise said
        return said


async def test_only_what_went_small_is_judged_and_the_rest_loses_nothing() -> None:
    by = Scripted({"p0": Verdict(0.5, 1.0), "p2": Verdict(0.5, 1.0), "p4": Undecided("no verdict")})
    found = await judged(pairs(), ROWS, by, seed=0, max_tokens=64)
    assert sorted(by.seen) == [(f"prompt {n}", "small says", "large says") for n in (0, 2, 4, 6)]
    assert (found.pairs, found.judged, found.faults, found.without_reference) == (4, 2, 1, 1)
    assert (found.small, found.large) == (0.5, 1.0)
    assert found.drift is not None
    assert (found.drift.value, found.drift.low, found.drift.high) == (-0.5, -0.5, -0.5)
    assert found.overall is not None
    assert found.overall.value == pytest.approx(-0.25)
    assert found.overall.low < found.overall.value < found.overall.high


async def test_a_judge_that_stops_leaves_what_it_said() -> None:
    by = Scripted({"p0": Verdict(1.0, 1.0), "p2": TierwiseError("the key is wrong")})
    found = await judged(pairs(), ROWS, by, seed=0, max_tokens=64)
    assert (found.judged, found.problem) == (1, "the key is wrong")
    nothing = quality(by, 4, 8, Verdicts({}, problem="the key is wrong"), seed=0)
    assert (nothing.judged, nothing.drift, nothing.overall) == (0, None, None)
