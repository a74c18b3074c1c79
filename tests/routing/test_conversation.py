"""Which turns count, and how hard a conversation is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Decision, Reason, Tier
from serve_app.routing.conversation import earlier_turns, hardest, is_tool_loop, needs_no_score
from serve_app.routing.policy import in_conversation


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


SMALL = Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65)


def test_only_user_turns_before_the_last_one_count_oldest_first() -> None:
    body = chat(("system", "s"), ("user", "one"), ("assistant", "a"), ("user", "two"), ("assistant", "b"), ("user", "three"))
    assert earlier_turns(body, 16) == ("one", "two")
    assert earlier_turns(body, 1) == ("two",)
    assert earlier_turns(body, 0) == ()


def test_parts_are_read_and_empty_turns_left_out() -> None:
    body = chat(("user", [{"type": "text", "text": "in parts"}]), ("user", "  "), ("user", None), ("user", "last"))
    assert earlier_turns(body, 16) == ("in parts",)


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"messages": []}, {"messages": "odd"}])
def test_what_is_no_conversation_has_no_turns_before(body: dict[str, Any]) -> None:
    assert earlier_turns(body, 16) == ()
    assert not is_tool_loop(body)


def test_a_tool_loop_ends_with_a_tools_message() -> None:
    assert is_tool_loop(chat(("user", "weather?"), ("assistant", None), ("tool", "12 degrees")))
    assert not is_tool_loop(chat(("tool", "12 degrees"), ("user", "thanks")))


def test_code_in_a_turn_needs_no_model_unless_the_heuristic_is_off() -> None:
    assert needs_no_score("```python\nprint(1)\n```", math_code_heuristic=True)
    assert not needs_no_score("```python\nprint(1)\n```", math_code_heuristic=False)
    assert not needs_no_score("hello", math_code_heuristic=True)


@given(st.lists(st.none() | st.floats(0, 1), max_size=20))
def test_a_conversation_is_as_hard_as_its_hardest_known_turn(scores: list[float | None]) -> None:
    known = [score for score in scores if score is not None]
    assert hardest(scores) == (max(known) if known else None)


@pytest.mark.parametrize(("before", "tier"), [(None, Tier.SMALL), (0.6499, Tier.SMALL), (0.65, Tier.LARGE), (1.0, Tier.LARGE)])
def test_a_hard_turn_before_keeps_the_large_tier(before: float | None, tier: Tier) -> None:
    decision = in_conversation(SMALL, before)
    assert decision.tier is tier
    assert decision.reason is (Reason.CONVERSATION if tier is Tier.LARGE else Reason.SCORE_BELOW)
    assert decision.conversation == before


def test_a_large_tier_without_a_replica_is_not_insisted_on() -> None:
    assert in_conversation(SMALL, 1.0, frozenset({Tier.SMALL})).tier is Tier.SMALL
