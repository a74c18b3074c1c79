"""When a tier breaks before its first byte: who is asked next, and what is recorded."""

from typing import Any

import pytest

from serve_app.domain import Outcome, Reason, Tier
from serve_app.errors import EngineFailed, EngineRejected, EngineTimeout, NotReady, Overloaded, UpstreamError
from serve_app.resilience import BreakerState
from serve_app.settings import Timeouts
from serve_app.stream import event
from tests.fakes import (
    FOREVER,
    FakeEngine,
    Pause,
    World,
    chunk,
    failover,
    make_request,
    plain_answer,
    read_all,
)
from tests.fakes import stream_script as stream
from tests.pipelines import HARD, QUICK, only_record, outcomes


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([EngineFailed("broken")], Outcome.FAILED),
        ([], Outcome.FAILED),
        ([Pause(FOREVER)], Outcome.TIMEOUT),
    ],
    ids=["fails", "ends without an answer", "too slow"],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_small_tier_that_breaks_is_replaced_by_the_large_one(script: list[Any], outcome: Outcome, streamed: bool) -> None:
    world = World(timeouts=QUICK)
    world.small.script = script
    world.large.script = stream("Hi") if streamed else [plain_answer("large-model")]
    answer = await world.pipeline().answer(make_request(stream=streamed))
    assert (answer.decision.tier, answer.decision.reason, answer.model) == (Tier.LARGE, Reason.FALLBACK_ENGINE_ERROR, "large-model")
    if streamed:
        await read_all(answer.events)
    record = await only_record(world)
    assert record.decision == answer.decision
    assert outcomes(record) == [(Tier.SMALL, outcome), (Tier.LARGE, Outcome.OK)]
    assert record.outcome is Outcome.OK
    assert world.small.calls[0].closed
    assert [call.request_id for call in (*world.small.calls, *world.large.calls)] == ["tw-1-0", "tw-1-1"]


async def test_a_stream_whose_first_event_is_an_error_is_replaced_too() -> None:
    world = World()
    world.small.script = [event({"error": {"message": "engine dead", "code": 500}}), "data: [DONE]\n\n"]
    world.large.script = stream("Hi")
    answer = await world.pipeline().answer(make_request(stream=True))
    assert "Hi" in await read_all(answer.events)
    assert outcomes(await only_record(world)) == [(Tier.SMALL, Outcome.FAILED), (Tier.LARGE, Outcome.OK)]


async def test_the_saving_after_a_fallback_counts_only_the_answer() -> None:
    """An all-large service would not have made the failed attempt."""
    world = World()
    world.small.script = [EngineFailed("broken")]
    await world.pipeline().answer(make_request())
    record = await only_record(world)
    assert record.all_large_usd == (10 * 1.0 + 20 * 2.0) / 1_000_000
    assert record.saved_usd == 0.0


@pytest.mark.parametrize(
    ("script", "error", "outcome"),
    [
        ([EngineFailed("The model failed to answer.")], EngineFailed, Outcome.FAILED),
        ([Pause(FOREVER)], EngineTimeout, Outcome.TIMEOUT),
        ([EngineRejected("too long")], EngineRejected, Outcome.REJECTED),
        ([Overloaded("full")], Overloaded, Outcome.REFUSED),
        ([KeyError("a bug")], KeyError, Outcome.FAILED),
    ],
)
async def test_a_large_tier_that_breaks_raises(script: list[Any], error: type[Exception], outcome: Outcome) -> None:
    world = World(score=HARD, timeouts=QUICK)
    world.failover = failover(world.clock, most=0)
    world.large.script = script
    with pytest.raises(error):
        await world.pipeline().answer(make_request())
    record = await only_record(world)
    assert record.outcome is outcome
    assert outcomes(record) == [(Tier.LARGE, outcome)]
    assert world.small.calls == []
    assert world.large.calls[0].closed
    assert (record.cost_usd, record.saved_usd) == (0.0, 0.0)


async def test_a_large_tier_that_breaks_once_is_asked_again() -> None:
    world = World(score=HARD)
    world.large.script = [lambda: break_first(world.large), plain_answer("large-model")]
    answer = await world.pipeline().answer(make_request())
    assert answer.decision.tier is Tier.LARGE
    assert outcomes(await only_record(world)) == [(Tier.LARGE, Outcome.FAILED), (Tier.LARGE, Outcome.OK)]
    assert world.observer.retries == [Tier.LARGE]


def break_first(engine: FakeEngine) -> None:
    if len(engine.calls) == 1:
        raise EngineFailed("broken")


async def test_a_tier_that_keeps_breaking_is_left_alone_and_nobody_waits_for_it() -> None:
    world = World(score=HARD)
    world.failover = failover(world.clock, most=0, failures=3)
    world.large.script = [EngineFailed("broken")]
    for _ in range(3):
        with pytest.raises(EngineFailed):
            await world.pipeline().answer(make_request())
    with pytest.raises(NotReady):
        await world.pipeline().answer(make_request())
    assert len(world.large.calls) == 3
    assert [record.outcome for record in world.ledger.records] == [Outcome.FAILED] * 4


async def test_no_try_goes_beyond_the_deadline_of_the_request() -> None:
    world = World(score=HARD, timeouts=Timeouts(request_s=5.0))
    world.large.script = [lambda: world.clock.advance(6.0), EngineFailed("broken")]
    with pytest.raises(EngineFailed):
        await world.pipeline().answer(make_request())
    assert len(world.large.calls) == 1


async def test_a_stream_that_breaks_off_counts_against_its_tier() -> None:
    world = World()
    world.failover = failover(world.clock, failures=1)
    world.small.script = [chunk("Hi", 1), EngineFailed("broken")]
    answer = await world.pipeline().answer(make_request(stream=True))
    await read_all(answer.events)
    assert world.failover.states()[Tier.SMALL] is BreakerState.OPEN


async def test_when_both_tiers_break_both_attempts_are_recorded() -> None:
    world = World()
    world.failover = failover(world.clock, most=1)
    world.small.script = [EngineFailed("one")]
    world.large.script = [EngineFailed("two")]
    with pytest.raises(UpstreamError, match="two"):
        await world.pipeline().answer(make_request())
    record = await only_record(world)
    assert [(a.tier, a.outcome, a.error) for a in record.attempts] == [
        (Tier.SMALL, Outcome.FAILED, "one"),
        (Tier.LARGE, Outcome.FAILED, "two"),
    ]


async def test_a_request_that_the_small_engine_refuses_is_not_tried_again() -> None:
    world = World()
    world.small.script = [EngineRejected("too long")]
    with pytest.raises(EngineRejected):
        await world.pipeline().answer(make_request())
    assert (await only_record(world)).outcome is Outcome.REJECTED
    assert world.large.calls == []


async def test_a_records_error_holds_no_internal_text() -> None:
    world = World(score=HARD)
    world.large.script = [KeyError("secret/path")]
    with pytest.raises(KeyError):
        await world.pipeline().answer(make_request())
    assert (await only_record(world)).attempts[0].error is None


# Streams
