"""Early exit through the pipeline: the small tier's first tokens decide whether they ever go out."""

import asyncio
import json
from typing import Any

import pytest

from serve_app.domain import Confidence, Json, Outcome, Reason, Tier, Usage
from serve_app.errors import EngineFailed, Overloaded
from serve_app.resilience import BreakerState
from serve_app.settings import EarlyExit, Live
from serve_app.stream import event
from tests.fakes import DONE, STREAM_HEAD, World, make_request, plain_answer, read_all, stream_script, usage, usage_chunk
from tests.pipelines import EASY, last_json, only_record, outcomes

SURE, UNSURE = -0.1, -3.0
ON = Live(early_exit=EarlyExit(enabled=True, tokens=3, statistic="mean", threshold=-1.0))


def told(text: str, number: int, logprob: float) -> str:
    entry = {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": [{"token": text, "logprob": logprob}]}
    choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]}, "finish_reason": None}
    return event({**STREAM_HEAD, "choices": [choice], "usage": usage(10, number)})


def watched(*logprobs: float) -> list[str]:
    """A stream of the small tier with log-probabilities, one token each."""
    chunks = [told(f"small{number} ", number, logprob) for number, logprob in enumerate(logprobs, start=1)]
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    end = event({**STREAM_HEAD, "choices": [last], "usage": usage(10, len(logprobs))})
    return [*chunks, end, usage_chunk(10, len(logprobs)), DONE]


def plain_watched(logprob: float) -> Json:
    body = plain_answer("small-model", text="small answer")
    body["choices"][0]["logprobs"] = {"content": [{"token": "small", "logprob": logprob, "top_logprobs": []}]}
    return body


def world_with(script: list[Any], live: Live = ON) -> World:
    world = World(score=EASY, live=live)
    world.small.script = script
    world.large.script = stream_script("large ", "answer ")
    return world


async def test_a_doubtful_stream_is_answered_by_the_large_tier_alone() -> None:
    world = world_with(watched(UNSURE, UNSURE, UNSURE, SURE, SURE))
    answer = await world.pipeline().answer(make_request(stream=True))
    assert (answer.decision.tier, answer.decision.reason) == (Tier.LARGE, Reason.ESCALATED_LOW_CONFIDENCE)
    assert answer.model == "large-model"
    sent = await read_all(answer.events)
    assert "large answer" in sent.replace('"}}]}\n\ndata: ', "").replace('"', "") or ("large " in sent and "small" not in sent)
    assert "small" not in sent
    record = await only_record(world)
    assert outcomes(record) == [(Tier.SMALL, Outcome.ESCALATED), (Tier.LARGE, Outcome.OK)]
    assert world.observer.escalations == 1


async def test_a_doubtful_attempt_is_closed_before_the_large_tier_is_asked() -> None:
    world = world_with(watched(UNSURE, UNSURE, UNSURE, SURE))
    closed: list[bool] = []
    world.large.script = [lambda: closed.append(world.small.calls[0].closed), *world.large.script]
    await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert closed == [True]


async def test_a_sure_stream_goes_out_whole_and_without_log_probabilities() -> None:
    world = world_with(watched(SURE, SURE, SURE, UNSURE, UNSURE, UNSURE))
    answer = await world.pipeline().answer(make_request(stream=True))
    assert answer.decision.reason is Reason.SCORE_BELOW
    sent = await read_all(answer.events)
    assert [f"small{number} " in sent for number in range(1, 7)] == [True] * 6
    assert '"logprob"' not in sent
    assert world.large.calls == []
    record = await only_record(world)
    assert record.attempts[0].confidence == Confidence(3, pytest.approx(SURE), pytest.approx(SURE), 0.0)


async def test_an_answer_shorter_than_what_is_held_back_is_judged_at_its_end() -> None:
    sure, unsure = world_with(watched(SURE)), world_with(watched(UNSURE))
    assert (await sure.pipeline().answer(make_request(stream=True))).decision.tier is Tier.SMALL
    assert (await unsure.pipeline().answer(make_request(stream=True))).decision.tier is Tier.LARGE


@pytest.mark.parametrize(("logprob", "text"), [(SURE, "small answer"), (UNSURE, "large answer")])
async def test_a_plain_answer_is_judged_as_a_whole(logprob: float, text: str) -> None:
    world = world_with([plain_watched(logprob)])
    world.large.script = [plain_answer("large-model", text="large answer")]
    body = (await world.pipeline().answer(make_request())).body
    assert body is not None
    assert body["choices"][0]["message"]["content"] == text
    assert "logprobs" not in body["choices"][0]


async def test_a_plain_answer_may_have_its_own_threshold() -> None:
    live = Live(early_exit=EarlyExit(enabled=True, threshold=-1.0, whole_threshold=-5.0))
    world = world_with([plain_watched(UNSURE)], live=live)
    assert (await world.pipeline().answer(make_request())).decision.tier is Tier.SMALL


async def test_both_attempts_are_paid_for_and_the_saving_is_what_the_answer_alone_would_have_cost() -> None:
    world = world_with([plain_watched(UNSURE)])
    world.large.script = [plain_answer("large-model")]
    await world.pipeline().answer(make_request())
    record = await only_record(world)
    assert [attempt.usage for attempt in record.attempts] == [Usage(10, 20), Usage(10, 20)]
    assert record.cost_usd == pytest.approx(sum(attempt.cost_usd for attempt in record.attempts))
    assert record.saved_usd == pytest.approx(-record.attempts[0].cost_usd)


async def test_a_cut_off_attempt_is_recorded_with_what_the_engine_says_it_used() -> None:
    world = world_with(watched(UNSURE, UNSURE, UNSURE, SURE))
    world.small.used = {"tw-1-0": Usage(10, 7)}
    sent = await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert last_json(sent)["tierwise"]["usage"]["completion_tokens"] == 3 + 2  # what was seen when the stream ended
    record = await only_record(world)
    assert [attempt.usage.completion_tokens for attempt in record.attempts] == [7, 2]


async def test_the_receipt_can_be_read_before_it_is_settled() -> None:
    world = world_with(watched(UNSURE, UNSURE, UNSURE))
    never = asyncio.Event()

    async def settled(request_id: str) -> Usage | None:
        await never.wait()
        return None

    world.small.settled = settled  # type: ignore[method-assign]
    await read_all((await world.pipeline().answer(make_request(stream=True))).events)
    assert world.ledger.records == []
    receipt = await world.recorder.get("tw-1")
    assert receipt is not None
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["escalated", "ok"]
    never.set()
    assert (await only_record(world)).id == "tw-1"


async def test_a_full_or_resting_large_tier_leaves_the_doubtful_answer_as_it_is() -> None:
    full = world_with(watched(UNSURE, UNSURE, UNSURE))
    full.gates[Tier.LARGE]._most = 0
    resting = world_with(watched(UNSURE, UNSURE, UNSURE))
    breaker = resting.failover._breakers[Tier.LARGE]
    for _ in range(5):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failed(ticket)
    assert breaker.state is BreakerState.OPEN
    for world in (full, resting):
        answer = await world.pipeline().answer(make_request(stream=True))
        assert answer.decision.reason is Reason.SCORE_BELOW
        assert "small1" in await read_all(answer.events)
        assert world.gates[Tier.LARGE].in_flight == 0


async def test_a_large_tier_that_fails_after_a_doubt_gives_its_place_back() -> None:
    world = world_with(watched(UNSURE, UNSURE, UNSURE))
    world.large.script = [EngineFailed("broken")]
    with pytest.raises(EngineFailed):
        await world.pipeline().answer(make_request(stream=True))
    assert [gate.in_flight for gate in world.gates.values()] == [0, 0]
    record = await only_record(world)
    assert outcomes(record)[0] == (Tier.SMALL, Outcome.ESCALATED)
    assert {outcome for _, outcome in outcomes(record)[1:]} == {Outcome.FAILED}


async def test_explicit_requests_and_structured_answers_are_not_watched() -> None:
    tools = {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "function": {"name": "f"}}]}
    for changes in ({"explicit_tier": Tier.SMALL}, {"body": tools}):
        world = world_with([plain_answer("small-model")])
        await world.pipeline().answer(make_request(**changes))
        assert "logprobs" not in json.dumps(world.small.calls[0].body)


async def test_off_nothing_is_asked_for() -> None:
    world = world_with([plain_answer("small-model")], live=Live())
    await world.pipeline().answer(make_request())
    assert "logprobs" not in world.small.calls[0].body


async def test_a_tier_that_is_full_refuses_and_the_refusal_is_recorded() -> None:
    world = world_with([plain_answer("small-model")], live=Live())
    world.gates[Tier.SMALL]._most = 0
    with pytest.raises(Overloaded):
        await world.pipeline().answer(make_request())
    record = await only_record(world)
    assert (record.outcome, outcomes(record)) == (Outcome.REFUSED, [(Tier.SMALL, Outcome.REFUSED)])
    assert world.small.calls == []
