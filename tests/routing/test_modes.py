"""Capacity, shadow and canary: what they may change of a decision, and what they may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Decision, Mode, Reason, Score, Tier
from serve_app.routing.policy import Policy, decide, in_conversation, in_mode, part_of
from serve_app.settings import Live
from tests.fakes import make_request, make_score

RAISED, LOWERED = Policy(threshold=0.65, shift=0.1), Policy(threshold=0.65, shift=-0.1)
SHADOW = Live(mode="shadow")


def decided(tier: Tier, reason: Reason, **fields: object) -> Decision:
    return Decision(tier, reason, 0.65, Score(value=0.5), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "score", "tier", "reason"),
    [
        (RAISED, 0.7, Tier.SMALL, Reason.CAPACITY),
        (RAISED, 0.76, Tier.LARGE, Reason.SCORE_ABOVE),
        (RAISED, 0.6, Tier.SMALL, Reason.SCORE_BELOW),
        (LOWERED, 0.6, Tier.LARGE, Reason.CAPACITY),
        (LOWERED, 0.5, Tier.SMALL, Reason.SCORE_BELOW),
        (LOWERED, 0.7, Tier.LARGE, Reason.SCORE_ABOVE),
    ],
)
def test_capacity_is_the_reason_only_where_it_changed_the_tier(policy: Policy, score: float, tier: Tier, reason: Reason) -> None:
    decision = decide(policy, make_request(), make_score(score))
    assert (decision.tier, decision.reason) == (tier, reason)
    assert decision.threshold == pytest.approx(0.65 + policy.shift)
    assert decision.shift == pytest.approx(policy.shift)


def test_a_requests_own_threshold_is_not_moved_by_capacity() -> None:
    decision = decide(RAISED, make_request(threshold=0.65), make_score(0.7))
    assert (decision.tier, decision.threshold, decision.shift) == (Tier.LARGE, 0.65, 0.0)


def test_a_missing_score_goes_large_whatever_capacity_says() -> None:
    assert decide(RAISED, make_request(), make_score(None)).tier is Tier.LARGE


@pytest.mark.parametrize(("before", "tier"), [(0.64, Tier.SMALL), (0.65, Tier.LARGE), (0.7, Tier.LARGE)])
def test_capacity_does_not_drop_a_conversation_of_hard_work(before: float, tier: Tier) -> None:
    decision = decide(RAISED, make_request(), make_score(0.1))
    assert in_conversation(decision, before).tier is tier


@given(st.floats(0, 1), st.floats(-0.5, 0.5), st.floats(0, 1))
def test_the_moved_threshold_stays_in_range(threshold: float, shift: float, score: float) -> None:
    decision = decide(Policy(threshold=threshold, shift=shift), make_request(), make_score(score))
    assert 0.0 <= decision.threshold <= 1.0


def test_shadow_records_the_choice_and_lets_the_default_tier_answer() -> None:
    small = in_mode(decided(Tier.SMALL, Reason.SCORE_BELOW), make_request(), SHADOW)
    assert (small.tier, small.chosen, small.mode, small.reason) == (Tier.LARGE, Tier.SMALL, Mode.SHADOW, Reason.SCORE_BELOW)
    large = in_mode(decided(Tier.LARGE, Reason.SCORE_ABOVE), make_request(), Live(mode="shadow", shadow_tier="small"))
    assert (large.tier, large.chosen) == (Tier.SMALL, Tier.LARGE)


@pytest.mark.parametrize("live", [SHADOW, Live(mode="canary", canary_share=0.0)])
@pytest.mark.parametrize("reason", [Reason.EXPLICIT_MODEL, Reason.EXPLICIT_TIER, Reason.TIER_UNAVAILABLE, Reason.TOOL_LOOP])
def test_no_mode_touches_what_the_client_or_a_fault_decided(live: Live, reason: Reason) -> None:
    decision = decided(Tier.SMALL, reason)
    assert in_mode(decision, make_request(), live) == decision


def test_shadow_stays_inside_the_guards() -> None:
    decision = in_mode(decided(Tier.SMALL, Reason.SCORE_BELOW, allowed=(Tier.SMALL,)), make_request(), SHADOW)
    assert decision.tier is Tier.SMALL


@pytest.mark.parametrize(("share", "tier"), [(0.0, Tier.LARGE), (1.0, Tier.SMALL)])
def test_canary_lets_its_share_of_the_easy_traffic_go_small(share: float, tier: Tier) -> None:
    live = Live(mode="canary", canary_share=share)
    easy = in_mode(decided(Tier.SMALL, Reason.SCORE_BELOW), make_request(), live)
    assert (easy.tier, easy.chosen, easy.mode) == (tier, Tier.SMALL, Mode.CANARY)
    hard = decided(Tier.LARGE, Reason.SCORE_ABOVE)
    assert in_mode(hard, make_request(), live) == hard


def test_a_session_stays_on_its_side_of_the_canary() -> None:
    live = Live(mode="canary", canary_share=0.5)
    easy = decided(Tier.SMALL, Reason.SCORE_BELOW)
    sides = {session: {in_mode(easy, make_request(session=session, id=f"tw-{n}"), live).tier for n in range(20)} for session in "abcdefgh"}
    assert all(len(tiers) == 1 for tiers in sides.values())
    assert {tier for tiers in sides.values() for tier in tiers} == set(Tier)


def test_the_share_of_a_canary_is_what_was_asked_for() -> None:
    inside = sum(part_of(f"session {number}") < 0.1 for number in range(10_000))
    assert 900 <= inside <= 1100
