"""The decision: rules first, then the score against the threshold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Features, Reason, Tier
from serve_app.routing.policy import Policy, decide, decide_early
from tests.fakes import make_request, make_score

POLICY = Policy(threshold=0.65)
CODE = Features(chars=5, turns=1, code=True, math=False, asks_code=False, asks_math=False)
FRACTION = st.floats(min_value=0.0, max_value=1.0)
ONLY_SMALL, ONLY_LARGE = frozenset({Tier.SMALL}), frozenset({Tier.LARGE})


@pytest.mark.parametrize(
    ("value", "tier", "reason"),
    [
        (0.65, Tier.LARGE, Reason.SCORE_ABOVE),
        (0.650001, Tier.LARGE, Reason.SCORE_ABOVE),
        (0.649999, Tier.SMALL, Reason.SCORE_BELOW),
        (0.0, Tier.SMALL, Reason.SCORE_BELOW),
        (1.0, Tier.LARGE, Reason.SCORE_ABOVE),
    ],
)
def test_a_score_at_the_threshold_goes_large(value: float, tier: Tier, reason: Reason) -> None:
    decision = decide(POLICY, make_request(), make_score(value))
    assert (decision.tier, decision.reason, decision.threshold) == (tier, reason, 0.65)


def test_the_margin_is_the_signed_distance() -> None:
    assert decide(POLICY, make_request(), make_score(0.5)).margin == pytest.approx(-0.15)
    assert decide(POLICY, make_request(), make_score(None)).margin is None


def test_no_score_goes_large_and_says_so() -> None:
    decision = decide(POLICY, make_request(), make_score(None))
    assert (decision.tier, decision.reason) == (Tier.LARGE, Reason.FALLBACK_ROUTER_ERROR)


def test_a_request_brings_its_own_threshold() -> None:
    decision = decide(POLICY, make_request(threshold=0.2), make_score(0.3))
    assert (decision.tier, decision.threshold) == (Tier.LARGE, 0.2)


@pytest.mark.parametrize(("asked", "used"), [(0.0, 0.3), (0.5, 0.5), (1.0, 0.8)])
def test_a_requests_threshold_stays_inside_the_bounds(asked: float, used: float) -> None:
    bounded = Policy(threshold=0.65, bounds=(0.3, 0.8))
    assert bounded.effective_threshold(make_request(threshold=asked)) == used


def test_the_bounds_do_not_bind_the_operator() -> None:
    assert Policy(threshold=0.9, bounds=(0.3, 0.8)).effective_threshold(make_request()) == 0.9


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize("reason", [Reason.EXPLICIT_MODEL, Reason.EXPLICIT_TIER])
def test_an_explicit_choice_is_kept_even_for_code(tier: Tier, reason: Reason) -> None:
    decision = decide_early(POLICY, make_request(explicit_tier=tier, explicit_reason=reason, features=CODE))
    assert decision is not None
    assert (decision.tier, decision.reason) == (tier, reason)


def test_who_names_the_small_tier_gets_the_large_one_where_that_alone_is_there() -> None:
    decision = decide_early(POLICY, make_request(explicit_tier=Tier.SMALL), ONLY_LARGE)
    assert decision is not None
    assert (decision.tier, decision.reason) == (Tier.LARGE, Reason.TIER_UNAVAILABLE)


def test_who_names_the_large_tier_never_gets_the_small_one() -> None:
    decision = decide_early(POLICY, make_request(explicit_tier=Tier.LARGE), ONLY_SMALL)
    assert decision is not None
    assert (decision.tier, decision.reason) == (Tier.LARGE, Reason.EXPLICIT_MODEL)


@pytest.mark.parametrize("fact", ["code", "math", "asks_code", "asks_math"])
def test_code_and_mathematics_go_large_without_a_score(fact: str) -> None:
    facts = Features(**{"chars": 5, "turns": 1, "code": False, "math": False, "asks_code": False, "asks_math": False, fact: True})
    decision = decide_early(POLICY, make_request(features=facts))
    assert decision is not None
    assert (decision.tier, decision.reason, decision.score.value) == (Tier.LARGE, Reason.HEURISTIC_MATH_CODE, None)


def test_the_heuristic_can_be_switched_off() -> None:
    assert decide_early(Policy(0.65, math_code_heuristic=False), make_request(features=CODE)) is None


def test_an_ordinary_request_needs_a_score() -> None:
    assert decide_early(POLICY, make_request()) is None


def test_the_other_tier_answers_when_the_chosen_one_has_no_replica() -> None:
    small_gone = decide(POLICY, make_request(), make_score(0.1), ONLY_LARGE)
    assert (small_gone.tier, small_gone.reason, small_gone.score.value) == (Tier.LARGE, Reason.TIER_UNAVAILABLE, 0.1)
    large_gone = decide(POLICY, make_request(), make_score(None), ONLY_SMALL)
    assert (large_gone.tier, large_gone.reason) == (Tier.SMALL, Reason.TIER_UNAVAILABLE)
    code = decide_early(POLICY, make_request(features=CODE), ONLY_SMALL)
    assert code is not None
    assert (code.tier, code.reason) == (Tier.SMALL, Reason.TIER_UNAVAILABLE)


def test_with_no_tier_at_all_the_choice_stands() -> None:
    decision = decide(POLICY, make_request(), make_score(0.1), frozenset())
    assert (decision.tier, decision.reason) == (Tier.SMALL, Reason.SCORE_BELOW)


@given(FRACTION, FRACTION, FRACTION)
def test_a_higher_threshold_never_sends_more_to_the_large_tier(value: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    lenient = decide(Policy(low), make_request(), make_score(value)).tier
    strict = decide(Policy(high), make_request(), make_score(value)).tier
    assert not (lenient is Tier.SMALL and strict is Tier.LARGE)
