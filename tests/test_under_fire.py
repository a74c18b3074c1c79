"""What goes wrong at the seams: slow probes, tool loops in every mode, garbage in counts, impatient clients, leaving replicas."""

import asyncio
from typing import Any

import pytest

from serve_app.domain import Mode, Outcome, Reason, Tier, Usage
from serve_app.errors import EngineFailed, EngineRejected
from serve_app.ports import asked_to_stop
from serve_app.resilience import Breaker, BreakerState
from serve_app.settings import BreakerSettings, CapacitySettings, EarlyExit, Live, Timeouts, parse_live
from tests.fakes import FakeClock, World, failover, make_request, plain_answer, read_all, stream_script
from tests.pipelines import EASY, HARD, QUICK, only_record, outcomes

HUNG = Timeouts(request_s=50.0, first_token_s=40.0, between_tokens_s=5.0, hung_s=20.0)


def test_a_probe_that_takes_longer_than_the_rest_still_closes_the_breaker() -> None:
    clock = FakeClock()
    breaker = Breaker(BreakerSettings(failures=1, open_s=10.0), clock)
    ticket = breaker.admit()
    assert ticket is not None
    breaker.failed(ticket)
    clock.advance(10.0)
    probe = breaker.admit()
    clock.advance(12.0)
    assert breaker.admit() is not None  # the slow probe's place is given to another one
    assert probe is not None
    breaker.succeeded(probe)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("live", [Live(mode="shadow"), Live(mode="canary", canary_share=0.0)])
async def test_a_tool_loop_stays_where_its_mode_put_the_call(live: Live) -> None:
    world = World(score=EASY, live=live)
    decision = await world.pipeline().decide(make_request(tool_loop=True))
    assert (decision.tier, decision.chosen, decision.reason) == (Tier.LARGE, Tier.SMALL, Reason.TOOL_LOOP)
    assert decision.mode in (Mode.SHADOW, Mode.CANARY)


async def test_capacity_does_not_move_a_tool_loop_to_the_small_tier() -> None:
    world = World(score=0.7)
    world.shift = 0.15
    world.assessor.answer = world.assessor.answer.__class__(0.7, (0.1,) * 10)
    pipeline = world.pipeline()
    assert (await pipeline.decide(make_request())).tier is Tier.SMALL
    assert (await pipeline.decide(make_request(tool_loop=True))).tier is Tier.LARGE


async def test_no_mode_sends_a_request_to_a_tier_without_a_replica() -> None:
    world = World(score=EASY, live=Live(mode="shadow"))
    world.large.is_ready = False
    assert (await world.pipeline().decide(make_request())).tier is Tier.SMALL


@pytest.mark.parametrize("usage", ["x", {"prompt_tokens": "abc"}, {"prompt_tokens": float("inf")}, {"prompt_tokens_details": 5}, [1]])
async def test_garbage_instead_of_counts_counts_nothing_and_leaks_nothing(usage: Any) -> None:
    world = World(score=EASY)
    world.small.script = [{**plain_answer("small-model"), "usage": usage}]
    await world.pipeline().answer(make_request())
    assert (await only_record(world)).usage == Usage()
    assert world.gates[Tier.SMALL].in_flight == 0


async def test_garbage_in_a_streams_counts_counts_nothing_and_leaks_nothing() -> None:
    world = World(score=EASY)
    chunks = stream_script("a ", "b ")
    world.small.script = [text.replace('"prompt_tokens":10', '"prompt_tokens":1e999') for text in chunks]
    assert "[DONE]" in await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    record = await only_record(world)
    assert (record.outcome, record.usage.prompt_tokens) == (Outcome.OK, 0)
    assert world.gates[Tier.SMALL].in_flight == 0


@pytest.mark.parametrize(("degraded", "tiers"), [(True, [Tier.LARGE, Tier.SMALL]), (False, [Tier.LARGE])])
async def test_a_large_tier_that_fails_is_replaced_only_where_that_is_allowed(degraded: bool, tiers: list[Tier]) -> None:
    world = World(score=HARD)
    world.failover = failover(world.clock, most=1, degraded=degraded)
    world.large.script = [EngineFailed("broken")]
    pipeline = world.pipeline()
    if degraded:
        answer = await pipeline.answer(make_request())
        assert (answer.decision.tier, answer.decision.reason) == (Tier.SMALL, Reason.DEGRADED)
    else:
        with pytest.raises(EngineFailed):
            await pipeline.answer(make_request())
    assert list(dict.fromkeys(tier for tier, _ in outcomes(await only_record(world)))) == tiers


async def test_fallbacks_to_the_other_tier_do_not_spend_the_retries() -> None:
    world = World(score=EASY)
    world.failover = failover(world.clock, failures=1000)
    world.small.script = [EngineFailed("broken")]
    for number in range(30):  # more than the budget's reserve
        assert (await world.pipeline().answer(make_request(id=f"tw-{number}"))).decision.tier is Tier.LARGE
    assert (world.observer.retries, world.observer.fallbacks) == ([], [Tier.LARGE] * 30)


@pytest.mark.parametrize(
    ("stream", "waited", "state"), [(True, 25.0, "open"), (True, 5.0, "closed"), (False, 25.0, "closed"), (False, 45.0, "open")]
)
async def test_only_a_long_silence_before_a_client_leaves_counts_against_the_tier(stream: bool, waited: float, state: str) -> None:
    world = World(score=EASY, timeouts=HUNG)
    world.failover = failover(world.clock, failures=1)
    pipeline = world.pipeline()
    world.small.script = [lambda: world.clock.advance(waited), asyncio.CancelledError()]
    with pytest.raises(asyncio.CancelledError):
        await pipeline.answer(make_request(stream=stream))
    assert world.failover.states()[Tier.SMALL].value == state


async def test_a_leaving_replica_records_what_is_not_settled_in_time() -> None:
    world = World(score=EASY, timeouts=QUICK)
    world.failover = failover(world.clock, most=0)
    never = asyncio.Event()

    async def settled(request_id: str) -> Usage | None:
        await never.wait()
        return None

    world.small.settled = settled  # type: ignore[method-assign]
    world.small.script = [lambda: None, asyncio.CancelledError()]
    with pytest.raises(asyncio.CancelledError):
        await world.pipeline().answer(make_request())
    assert world.ledger.records == []
    await world.recorder.drain(0.01)
    assert [record.outcome for record in world.ledger.records] == [Outcome.CANCELLED]


async def test_a_refusals_words_are_not_kept_since_they_may_quote_the_request() -> None:
    world = World(score=EASY)
    world.small.script = [EngineRejected("bad_words: Jane Doe 555-1234", code="invalid_value")]
    with pytest.raises(EngineRejected, match="Jane Doe"):
        await world.pipeline().answer(make_request())
    assert (await only_record(world)).attempts[0].error == "invalid_value"


def test_a_live_setting_inside_another_changes_alone() -> None:
    base = Live(early_exit=EarlyExit(threshold=-0.4, statistic="low"), capacity=CapacitySettings(raise_most=0.3))
    live = parse_live(base, {"early_exit": {"enabled": True}, "capacity": {"enabled": True}})
    assert (live.early_exit.enabled, live.early_exit.threshold, live.early_exit.statistic) == (True, -0.4, "low")
    assert (live.capacity.enabled, live.capacity.raise_most) == (True, 0.3)


async def test_a_cancellation_of_the_far_side_is_told_from_our_own() -> None:
    seen: list[bool] = []

    async def work(cancelled_far_away: bool) -> None:
        try:
            if cancelled_far_away:
                raise asyncio.CancelledError
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append(asked_to_stop())

    await work(cancelled_far_away=True)
    task = asyncio.create_task(work(cancelled_far_away=False))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == [False, True]
