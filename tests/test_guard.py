"""The hard guards: context and capability, before any score."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Reason, Tier
from serve_app.errors import EngineFailed, EngineRejected, RequestError
from serve_app.routing.features import from_body
from serve_app.routing.guards import TierLimits, at_most_tokens, lacks
from serve_app.settings import Supports
from tests.fakes import World, make_request

SHORT, LONG = 500, 5000


def world_with(small: int = SHORT, large: int = LONG, **supports: Any) -> World:
    world = World()
    world.limits = {Tier.SMALL: TierLimits(small, Supports(**supports)), Tier.LARGE: TierLimits(large, Supports())}
    return world


def asking(text: str = "hello", **body: Any) -> Any:
    """A request with more in its body than a message."""
    full = {"messages": [{"role": "user", "content": text}], **body}
    return make_request(text, body=full, features=from_body(text, full))


async def test_a_short_prompt_is_never_counted() -> None:
    world = world_with()
    await world.pipeline().answer(asking())
    assert (world.small.counted, world.large.counted) == ([], [])


async def test_a_prompt_too_long_for_the_small_context_goes_large_without_being_scored() -> None:
    world = world_with()
    world.small.tokens, world.large.tokens = 600, 600
    answer = await world.pipeline().answer(asking("word " * 200))
    assert (answer.decision.tier, answer.decision.reason) == (Tier.LARGE, Reason.GUARD_CONTEXT)
    assert world.embedder.texts == []
    assert world.small.calls == []


async def test_a_prompt_near_the_limit_that_fits_is_scored_as_always() -> None:
    world = world_with()
    world.small.tokens = 300
    answer = await world.pipeline().answer(asking("word " * 200))
    assert (answer.decision.tier, answer.decision.reason) == (Tier.SMALL, Reason.SCORE_BELOW)


@pytest.mark.parametrize(("tokens", "tier"), [(400, Tier.SMALL), (401, Tier.LARGE)])
async def test_the_answer_needs_room_too(tokens: int, tier: Tier) -> None:
    world = world_with()
    world.small.tokens = tokens
    answer = await world.pipeline().answer(asking("word " * 90, max_tokens=100))
    assert answer.decision.tier is tier


async def test_what_fits_nowhere_is_refused_with_all_the_numbers() -> None:
    world = world_with()
    world.small.tokens = world.large.tokens = 6000
    with pytest.raises(RequestError, match=r"6000 tokens .* may take 7, .* 500 \(small\) and 5000 \(large\)") as refused:
        await world.pipeline().answer(asking("word " * 6000, max_tokens=7))
    assert refused.value.code == "context_length_exceeded"
    assert world.ledger.records == []


async def test_an_explicit_tier_that_is_too_small_is_refused_not_replaced() -> None:
    world = world_with()
    world.small.tokens = 600
    request = make_request("word " * 200, explicit_tier=Tier.SMALL)
    with pytest.raises(RequestError, match="600"):
        await world.pipeline().answer(request)


async def test_a_tier_that_cannot_count_is_asked_all_the_same() -> None:
    world = world_with()
    world.small.tokens = EngineFailed("down")
    answer = await world.pipeline().answer(asking("word " * 200))
    assert answer.decision.reason is Reason.SCORE_BELOW


async def test_a_prompt_that_the_engine_cannot_read_is_the_clients_mistake() -> None:
    world = world_with()
    world.small.tokens = EngineRejected("messages: no")
    with pytest.raises(EngineRejected):
        await world.pipeline().answer(asking("word " * 200))


@pytest.mark.parametrize(
    ("supports", "body"),
    [
        ({"tools": False}, {"tools": [{"type": "function"}]}),
        ({"json_schema": False}, {"response_format": {"type": "json_schema"}}),
        ({"logprobs": False}, {"logprobs": True}),
        ({"max_n": 1}, {"n": 2}),
    ],
)
async def test_what_the_small_tier_cannot_do_goes_large(supports: dict[str, Any], body: dict[str, Any]) -> None:
    world = world_with(**supports)
    answer = await world.pipeline().answer(asking(**body))
    assert (answer.decision.tier, answer.decision.reason) == (Tier.LARGE, Reason.GUARD_CAPABILITY)
    named = make_request(body={**asking(**body).body}, features=asking(**body).features, explicit_tier=Tier.SMALL)
    with pytest.raises(RequestError, match="small tier does not support"):
        await world.pipeline().answer(named)


async def test_what_no_tier_can_do_is_refused_by_name() -> None:
    world = world_with()
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    with pytest.raises(RequestError, match="No tier that may answer supports images"):
        await world.pipeline().answer(asking(messages=[{"role": "user", "content": image}]))


async def test_a_request_that_only_the_small_tier_can_answer_never_falls_back_to_the_large_one() -> None:
    world = World()
    world.limits = {Tier.SMALL: TierLimits(None, Supports(images=True)), Tier.LARGE: TierLimits(None, Supports())}
    world.small.script = [EngineFailed("broken")]
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    with pytest.raises(EngineFailed):
        await world.pipeline().answer(asking(messages=[{"role": "user", "content": image}]))
    assert world.large.calls == []


@given(st.text(max_size=400), st.integers(1, 2000))
def test_certainty_never_lets_more_bytes_through_than_the_context_has_tokens(text: str, context: int) -> None:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 10}
    if at_most_tokens(body) <= context:
        assert len(text.encode()) + 10 <= context


async def test_an_unknown_context_is_never_counted() -> None:
    world = World()
    world.limits = {tier: TierLimits(None, Supports()) for tier in Tier}
    await world.pipeline().answer(asking("x" * 10_000))
    assert (world.small.counted, world.large.counted) == ([], [])


def test_a_plain_request_lacks_nothing() -> None:
    assert lacks({}, from_body("hi", {}), Supports()) == []
