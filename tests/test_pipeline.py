"""The path of a request: every outcome is recorded once."""

import pytest

from serve_app.domain import Outcome, Reason, Tier
from serve_app.settings import Live
from tests.fakes import (
    FakeAssessor,
    FakeEmbedder,
    World,
    make_request,
    plain_answer,
)
from tests.pipelines import CODE, EASY, HARD, only_record, outcomes


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
    record = await only_record(world)
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
    record = await only_record(world)
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
    record = await only_record(world)
    assert record.cost_usd == (10 * 0.25 + 20 * 0.5) / 1_000_000
    assert record.all_large_usd == (10 * 1.0 + 20 * 2.0) / 1_000_000
    assert record.saved_usd == 0.0000375


async def test_the_large_tier_saves_nothing() -> None:
    world = World(score=HARD)
    await world.pipeline().answer(make_request())
    assert (await only_record(world)).saved_usd == 0.0


async def test_the_record_says_what_was_asked_without_the_prompt() -> None:
    world = World()
    await world.pipeline().answer(make_request("hello there", session="s-1"))
    record = await only_record(world)
    assert (record.prompt_hash, record.prompt_chars, record.session, record.stream) == ("hash of 11", 11, "s-1", False)
    assert "hello there" not in repr(record)


async def test_times_are_measured_from_the_arrival() -> None:
    world = World()
    world.small.script = [lambda: world.clock.advance(1.5), plain_answer("small-model")]
    await world.pipeline().answer(make_request())
    record = await only_record(world)
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
    assert (await only_record(world)).outcome is Outcome.OK


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
