"""Streams: what is passed on, what breaks off, and clients that leave. No tier changes after the first byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from serve_app.domain import Outcome, Tier, Usage
from serve_app.errors import EngineFailed, EngineRejected
from serve_app.settings import RouterSettings
from serve_app.stream import event
from tests.fakes import (
    FOREVER,
    FakeEmbedder,
    FakeEngine,
    Pause,
    World,
    chunk,
    make_request,
    plain_answer,
    read_all,
    until,
)
from tests.fakes import stream_script as stream
from tests.pipelines import EASY, QUICK, last_json, only_record, outcomes


async def test_a_stream_is_passed_on_and_recorded_once_it_ended() -> None:
    world = World()
    world.small.script = stream("Hel", "lo")
    answer = await world.pipeline().answer(make_request(stream=True))
    assert answer.body is None
    assert world.ledger.records == []
    sent = await read_all(answer.events)
    record = await only_record(world)
    receipt = last_json(sent)["tierwise"]
    assert (receipt["decision_id"], receipt["tier"], receipt["reason"]) == ("tw-1", "small", "score_below")
    assert receipt["usage"]["total_tokens"] == record.usage.total_tokens == 12
    assert (receipt["cost_usd"], receipt["saved_usd"]) == (record.cost_usd, record.saved_usd)
    assert record.cost_usd == (10 * 0.25 + 2 * 0.5) / 1_000_000
    assert "usage" not in json.loads(sent.split("\n\n")[0].removeprefix("data: "))
    assert world.small.calls[0].closed


async def test_an_engine_is_always_asked_for_usage() -> None:
    world = World()
    world.small.script = stream("Hi")
    await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert world.small.calls[0].body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert world.small.calls[0].body["stream"] is True


async def test_the_time_to_the_first_token_is_measured() -> None:
    world = World()
    world.small.script = [lambda: world.clock.advance(0.25), *stream("Hi")]
    answer = await world.pipeline().answer(make_request(stream=True))
    world.clock.advance(5.0)  # a client that does not read yet
    await read_all(answer.events)
    assert (await only_record(world)).attempts[0].first_token == 0.25


async def test_usage_that_was_asked_for_is_passed_on() -> None:
    world = World()
    world.small.script = stream("Hi")
    sent = await read_all((await world.pipeline().answer(make_request(stream=True, include_usage=True))).events)
    assert last_json(sent)["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(
    ("break_", "outcome"),
    [
        (EngineFailed("The model failed to answer."), Outcome.FAILED),
        (Pause(FOREVER), Outcome.TIMEOUT),
        (event({"error": {"message": "CUDA", "code": 500}}), Outcome.FAILED),
        (EngineRejected("late"), Outcome.REJECTED),
        (KeyError("secret/path"), Outcome.FAILED),
    ],
    ids=["fails", "stalls", "error event", "refuses late", "a bug"],
)
@pytest.mark.parametrize("tier", list(Tier))
async def test_a_stream_that_breaks_ends_in_an_error_event_on_the_same_tier(break_: object, outcome: Outcome, tier: Tier) -> None:
    world = World(timeouts=QUICK)
    world.engines[tier].script = [chunk("Hi", 1), break_]
    answer = await world.pipeline().answer(make_request(stream=True, explicit_tier=tier))
    sent = await read_all(answer.events)
    assert "Hi" in sent
    last = last_json(sent)
    assert last["error"]["type"] == "api_error"
    assert last["tierwise"]["tier"] == tier.value
    assert "CUDA" not in sent
    assert "secret" not in sent
    record = await only_record(world)
    assert (record.outcome, outcomes(record)) == (outcome, [(tier, outcome)])
    assert record.usage == Usage(10, 1)
    assert world.engines[tier.other].calls == []
    assert world.engines[tier].calls[0].closed


async def test_a_stream_without_an_end_is_a_failure() -> None:
    world = World()
    world.small.script = [chunk("Hi", 1)]
    sent = await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert "error" in last_json(sent)
    assert (await only_record(world)).outcome is Outcome.FAILED


async def test_a_malformed_chunk_is_skipped_and_counted() -> None:
    world = World()
    world.small.script = ["data: {broken\n\n", *stream("Hi")]
    sent = await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert "broken" not in sent
    assert world.observer.skipped == [Tier.SMALL]
    assert (await only_record(world)).outcome is Outcome.OK


async def test_two_choices_that_break_off_are_both_counted() -> None:
    world = World()
    world.small.script = [chunk("a", 3, index=0), chunk("x", 4, index=1), EngineFailed("broken")]
    body = {"messages": [], "n": 2}
    await read_all((await world.pipeline().answer(make_request(stream=True, body=body))).events)
    assert (await only_record(world)).usage == Usage(10, 7)


# Clients that leave


async def leave_while_scoring(world: World) -> None:
    world.embedder = FakeEmbedder(EASY, delay_s=FOREVER)
    await cancelled(world, lambda: world.embedder.texts)


async def leave_before_the_first_byte(world: World) -> None:
    world.small.script = [Pause(FOREVER)]
    await cancelled(world, lambda: world.small.calls)


async def cancelled(world: World, then: Callable[[], object]) -> None:
    slow = RouterSettings(embed_deadline_s=FOREVER, assess_deadline_s=FOREVER)
    answering = asyncio.create_task(world.pipeline(slow).answer(make_request(stream=True)))
    await until(then)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering


async def streaming(world: World) -> AsyncGenerator[str]:
    world.small.script = [chunk("a", 1), chunk("b", 2), Pause(FOREVER)]
    events = (await world.pipeline().answer(make_request(stream=True))).events
    assert events is not None
    return events


async def leave_before_reading(world: World) -> None:
    """Between the status line and the first chunk: the generator must not be one that never ran."""
    await (await streaming(world)).aclose()


async def leave_after_a_chunk(world: World) -> None:
    events = await streaming(world)
    while '"content":"b"' not in await anext(events):
        pass
    await events.aclose()


async def leave_while_waiting_for_a_chunk(world: World) -> None:
    reading = asyncio.create_task(read_all(await streaming(world)))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize(
    ("leave", "attempts", "usage"),
    [
        (leave_before_the_first_byte, [(Tier.SMALL, Outcome.CANCELLED)], Usage()),
        (leave_before_reading, [(Tier.SMALL, Outcome.CANCELLED)], Usage()),
        (leave_after_a_chunk, [(Tier.SMALL, Outcome.CANCELLED)], Usage(10, 2)),
        (leave_while_waiting_for_a_chunk, [(Tier.SMALL, Outcome.CANCELLED)], Usage(10, 2)),
    ],
)
async def test_a_client_that_leaves_stops_the_engine_and_is_recorded(leave: Any, attempts: list[Any], usage: Usage) -> None:
    world = World()
    await leave(world)
    record = await only_record(world)
    assert (record.outcome, outcomes(record), record.usage) == (Outcome.CANCELLED, attempts, usage)
    assert all(call.closed for call in world.small.calls)
    assert world.large.calls == []


async def test_a_client_that_leaves_while_it_is_scored_leaves_nothing_behind() -> None:
    world = World()
    await leave_while_scoring(world)
    assert world.small.calls == world.large.calls == []
    assert world.ledger.records == []


async def test_what_a_client_got_before_it_left_is_paid_for() -> None:
    world = World()
    await leave_after_a_chunk(world)
    record = await only_record(world)
    assert record.cost_usd == (10 * 0.25 + 2 * 0.5) / 1_000_000
    assert record.all_large_usd == (10 * 1.0 + 2 * 2.0) / 1_000_000


async def test_many_requests_at_once_are_each_recorded_once() -> None:
    world = World()
    world.small = FakeEngine("small-model", [Pause(0.001), plain_answer("small-model")])
    pipeline = world.pipeline()
    await asyncio.gather(*(pipeline.answer(make_request(id=f"tw-{i}")) for i in range(50)))
    assert sorted(record.id for record in world.ledger.records) == sorted(f"tw-{i}" for i in range(50))
