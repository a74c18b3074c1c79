"""The path of a request: every outcome is recorded once, and no tier changes after the first byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from serve_app.domain import Features, Outcome, Reason, Record, Tier, Usage
from serve_app.errors import EngineFailed, EngineRejected, EngineTimeout, NotReady, Overloaded, UpstreamError
from serve_app.resilience import BreakerState
from serve_app.settings import Live, RouterSettings, Timeouts
from serve_app.stream import event
from tests.fakes import (
    FOREVER,
    FakeAssessor,
    FakeEmbedder,
    FakeEngine,
    Pause,
    World,
    chunk,
    failover,
    make_request,
    plain_answer,
    read_all,
    until,
)
from tests.fakes import stream_script as stream

EASY, HARD = 0.1, 0.95
QUICK = Timeouts(request_s=0.02, first_token_s=0.02, between_tokens_s=0.02)
CODE = Features(chars=5, turns=1, code=True, math=False, asks_code=False, asks_math=False)


def only_record(world: World) -> Record:
    """The one record; the ledger and the observer got the same one."""
    assert len(world.ledger.records) == 1
    assert world.observer.records == world.ledger.records
    assert world.observer.attempts == list(world.ledger.records[0].attempts)
    return world.ledger.records[0]


def outcomes(record: Record) -> list[tuple[Tier, Outcome]]:
    return [(attempt.tier, attempt.outcome) for attempt in record.attempts]


def last_json(sent: str) -> dict[str, Any]:
    *_, last, done, rest = sent.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return json.loads(last.removeprefix("data: "))  # type: ignore[no-any-return]


# Plain answers


@pytest.mark.parametrize(
    ("score", "tier", "model", "reason"),
    [(EASY, Tier.SMALL, "small-model", Reason.SCORE_BELOW), (HARD, Tier.LARGE, "large-model", Reason.SCORE_ABOVE)],
)
async def test_the_score_chooses_the_tier(score: float, tier: Tier, model: str, reason: Reason) -> None:
    world = World(score=score)
    answer = await world.pipeline().answer(make_request())
    assert (answer.decision.tier, answer.decision.reason, answer.model) == (tier, reason, model)
    assert answer.body is not None
    assert answer.events is None
    assert answer.body["model"] == model
    record = only_record(world)
    assert record.outcome is Outcome.OK
    assert outcomes(record) == [(tier, Outcome.OK)]
    assert world.observer.decisions == [answer.decision]
    other = world.engines[tier.other]
    assert other.calls == []


async def test_the_engine_gets_the_body_under_its_own_model_name() -> None:
    world = World()
    await world.pipeline().answer(make_request(session="s-1"))
    (call,) = world.small.calls
    assert call.body == {"messages": [{"role": "user", "content": "hello"}], "model": "small-model", "stream": False}
    assert (call.kind, call.session, call.request_id) == ("chat", "s-1", "tw-1-0")


async def test_the_generator_of_a_plain_answer_is_closed() -> None:
    world = World()
    await world.pipeline().answer(make_request())
    assert world.small.calls[0].closed


async def test_the_receipt_of_a_plain_answer_agrees_with_the_record() -> None:
    world = World()
    body = (await world.pipeline().answer(make_request())).body
    record = only_record(world)
    assert body is not None
    assert body["tierwise"] == {
        "decision_id": "tw-1",
        "tier": "small",
        "model": "small-model",
        "score": record.decision.score.value,
        "threshold": 0.65,
        "reason": "score_below",
        "attempts": 1,
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "cached_tokens": 0, "total_tokens": 30},
        "cost_usd": record.cost_usd,
        "saved_usd": record.saved_usd,
    }


async def test_costs_are_exact() -> None:
    """10 and 20 tokens: 0.25 and 0.50 dollars a million on the small tier, 1 and 2 on the large one."""
    world = World()
    await world.pipeline().answer(make_request())
    record = only_record(world)
    assert record.cost_usd == (10 * 0.25 + 20 * 0.5) / 1_000_000
    assert record.all_large_usd == (10 * 1.0 + 20 * 2.0) / 1_000_000
    assert record.saved_usd == 0.0000375


async def test_the_large_tier_saves_nothing() -> None:
    world = World(score=HARD)
    await world.pipeline().answer(make_request())
    assert only_record(world).saved_usd == 0.0


async def test_the_record_says_what_was_asked_without_the_prompt() -> None:
    world = World()
    await world.pipeline().answer(make_request("hello there", session="s-1"))
    record = only_record(world)
    assert (record.prompt_hash, record.prompt_chars, record.session, record.stream) == ("hash of 11", 11, "s-1", False)
    assert "hello there" not in repr(record)


async def test_times_are_measured_from_the_arrival() -> None:
    world = World()
    world.small.script = [lambda: world.clock.advance(1.5), plain_answer("small-model")]
    await world.pipeline().answer(make_request())
    record = only_record(world)
    assert record.created == 1_700_000_000.0
    assert record.overhead_seconds == 0.0
    assert record.total_seconds == 1.5
    assert (record.attempts[0].started, record.attempts[0].ended) == (0.0, 1.5)


# Rules and faults of the router


async def test_code_goes_large_without_asking_any_signal() -> None:
    world = World(score=EASY)
    answer = await world.pipeline().answer(make_request(features=CODE))
    assert answer.decision.reason is Reason.HEURISTIC_MATH_CODE
    assert world.embedder.texts == []


async def test_the_heuristic_follows_the_live_setting() -> None:
    world = World(score=EASY, live=Live(math_code_heuristic=False))
    answer = await world.pipeline().answer(make_request(features=CODE))
    assert answer.decision.reason is Reason.SCORE_BELOW


async def test_the_live_threshold_is_read_at_every_request() -> None:
    world = World(score=0.3)
    pipeline = world.pipeline()
    assert (await pipeline.answer(make_request())).decision.tier is Tier.SMALL
    world.live = Live(threshold=0.2, self_assessment=False)
    assert (await pipeline.answer(make_request())).decision.tier is Tier.LARGE


async def test_a_dead_router_never_fails_a_request() -> None:
    world = World(score=RuntimeError("no embedder"))
    world.assessor = FakeAssessor(RuntimeError("no router LLM"))
    answer = await world.pipeline().answer(make_request())
    assert (answer.decision.tier, answer.decision.reason) == (Tier.LARGE, Reason.FALLBACK_ROUTER_ERROR)
    assert len(world.observer.faults) == 2
    assert only_record(world).outcome is Outcome.OK


async def test_a_tier_without_a_replica_is_replaced() -> None:
    world = World(score=EASY)
    world.small.is_ready = False
    answer = await world.pipeline().answer(make_request())
    assert (answer.decision.tier, answer.decision.reason) == (Tier.LARGE, Reason.TIER_UNAVAILABLE)


async def test_explain_gives_the_score_even_where_a_rule_decides() -> None:
    world = World(score=EASY)
    decision = await world.pipeline().explain(make_request(features=CODE))
    assert decision.reason is Reason.HEURISTIC_MATH_CODE
    assert decision.score.value == pytest.approx(EASY, abs=1e-5)
    assert world.small.calls == world.large.calls == []
    assert world.ledger.records == []


async def test_explain_says_what_answer_would_do() -> None:
    world = World(score=0.6)
    pipeline = world.pipeline()
    assert (await pipeline.explain(make_request())) == (await pipeline.answer(make_request())).decision


# Faults of an engine before its first byte


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
    record = only_record(world)
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
    assert outcomes(only_record(world)) == [(Tier.SMALL, Outcome.FAILED), (Tier.LARGE, Outcome.OK)]


async def test_the_saving_after_a_fallback_counts_only_the_answer() -> None:
    """An all-large service would not have made the failed attempt."""
    world = World()
    world.small.script = [EngineFailed("broken")]
    await world.pipeline().answer(make_request())
    record = only_record(world)
    assert record.all_large_usd == (10 * 1.0 + 20 * 2.0) / 1_000_000
    assert record.saved_usd == 0.0


@pytest.mark.parametrize(
    ("script", "error", "outcome"),
    [
        ([EngineFailed("The model failed to answer.")], EngineFailed, Outcome.FAILED),
        ([Pause(FOREVER)], EngineTimeout, Outcome.TIMEOUT),
        ([EngineRejected("too long")], EngineRejected, Outcome.REJECTED),
        ([Overloaded("full")], Overloaded, Outcome.FAILED),
        ([KeyError("a bug")], KeyError, Outcome.FAILED),
    ],
)
async def test_a_large_tier_that_breaks_raises(script: list[Any], error: type[Exception], outcome: Outcome) -> None:
    world = World(score=HARD, timeouts=QUICK)
    world.failover = failover(world.clock, most=0)
    world.large.script = script
    with pytest.raises(error):
        await world.pipeline().answer(make_request())
    record = only_record(world)
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
    assert outcomes(only_record(world)) == [(Tier.LARGE, Outcome.FAILED), (Tier.LARGE, Outcome.OK)]
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
    record = only_record(world)
    assert [(a.tier, a.outcome, a.error) for a in record.attempts] == [
        (Tier.SMALL, Outcome.FAILED, "one"),
        (Tier.LARGE, Outcome.FAILED, "two"),
    ]


async def test_a_request_that_the_small_engine_refuses_is_not_tried_again() -> None:
    world = World()
    world.small.script = [EngineRejected("too long")]
    with pytest.raises(EngineRejected):
        await world.pipeline().answer(make_request())
    assert only_record(world).outcome is Outcome.REJECTED
    assert world.large.calls == []


async def test_a_records_error_holds_no_internal_text() -> None:
    world = World(score=HARD)
    world.large.script = [KeyError("secret/path")]
    with pytest.raises(KeyError):
        await world.pipeline().answer(make_request())
    assert only_record(world).attempts[0].error is None


# Streams


async def test_a_stream_is_passed_on_and_recorded_once_it_ended() -> None:
    world = World()
    world.small.script = stream("Hel", "lo")
    answer = await world.pipeline().answer(make_request(stream=True))
    assert answer.body is None
    assert world.ledger.records == []
    sent = await read_all(answer.events)
    record = only_record(world)
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
    assert only_record(world).attempts[0].first_token == 0.25


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
    record = only_record(world)
    assert (record.outcome, outcomes(record)) == (outcome, [(tier, outcome)])
    assert record.usage == Usage(10, 1)
    assert world.engines[tier.other].calls == []
    assert world.engines[tier].calls[0].closed


async def test_a_stream_without_an_end_is_a_failure() -> None:
    world = World()
    world.small.script = [chunk("Hi", 1)]
    sent = await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert "error" in last_json(sent)
    assert only_record(world).outcome is Outcome.FAILED


async def test_a_malformed_chunk_is_skipped_and_counted() -> None:
    world = World()
    world.small.script = ["data: {broken\n\n", *stream("Hi")]
    sent = await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert "broken" not in sent
    assert world.observer.skipped == [Tier.SMALL]
    assert only_record(world).outcome is Outcome.OK


async def test_two_choices_that_break_off_are_both_counted() -> None:
    world = World()
    world.small.script = [chunk("a", 3, index=0), chunk("x", 4, index=1), EngineFailed("broken")]
    body = {"messages": [], "n": 2}
    await read_all((await world.pipeline().answer(make_request(stream=True, body=body))).events)
    assert only_record(world).usage == Usage(10, 7)


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
    record = only_record(world)
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
    record = only_record(world)
    assert record.cost_usd == (10 * 0.25 + 2 * 0.5) / 1_000_000
    assert record.all_large_usd == (10 * 1.0 + 2 * 2.0) / 1_000_000


async def test_many_requests_at_once_are_each_recorded_once() -> None:
    world = World()
    world.small = FakeEngine("small-model", [Pause(0.001), plain_answer("small-model")])
    pipeline = world.pipeline()
    await asyncio.gather(*(pipeline.answer(make_request(id=f"tw-{i}")) for i in range(50)))
    assert sorted(record.id for record in world.ledger.records) == sorted(f"tw-{i}" for i in range(50))


def scored_by_text(world: World, hard: str) -> None:
    """Turns that hold `hard` are hard, all others easy."""
    world.embedder = FakeEmbedder(EASY)
    world.embedder.by_text = lambda text: HARD if hard in text else EASY


@pytest.mark.parametrize(("easy_turns_since", "tier"), [(0, Tier.LARGE), (2, Tier.LARGE), (3, Tier.SMALL)])
async def test_a_conversation_drops_only_after_enough_easy_turns(easy_turns_since: int, tier: Tier) -> None:
    world = World(live=Live(conversation_turns=3))
    scored_by_text(world, "refactor")
    easy = tuple(f"ok {number}" for number in range(easy_turns_since))
    answer = await world.pipeline().answer(make_request("commit it", earlier=("refactor it all", *easy)))
    assert answer.decision.tier is tier
    assert answer.decision.reason is (Reason.CONVERSATION if tier is Tier.LARGE else Reason.SCORE_BELOW)


async def test_earlier_turns_are_not_scored_when_the_last_one_is_hard_or_they_do_not_count() -> None:
    world = World()
    scored_by_text(world, "hard")
    await world.pipeline().answer(make_request("hard", earlier=("one", "two")))
    assert world.embedder.texts == ["hard"]
    off = World(live=Live(conversation_turns=0))
    await off.pipeline().answer(make_request("hello", earlier=("one", "two")))
    assert off.embedder.texts == ["hello"]


async def test_turns_are_scored_once_and_remembered_by_content() -> None:
    world = World()
    pipeline = world.pipeline()
    await pipeline.answer(make_request("one"))
    await pipeline.answer(make_request("two", earlier=("one",)))
    await pipeline.answer(make_request("three", earlier=("one", "two")))
    assert world.embedder.texts == ["one", "two", "three"]


async def test_a_tool_loop_keeps_the_tier_of_its_turn_and_says_so() -> None:
    world = World(score=HARD)
    pipeline = world.pipeline()
    call = await pipeline.answer(make_request("weather?"))
    result = await pipeline.answer(make_request("weather?", tool_loop=True))
    assert call.decision.tier is result.decision.tier is Tier.LARGE
    assert result.decision.reason is Reason.TOOL_LOOP
