"""Token prices to dollars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Attempt, Outcome, Tier, Usage
from serve_app.observe import cost
from serve_app.settings import TokenPrice
from tests.fakes import PRICES

COUNT = st.integers(min_value=0, max_value=10**6)


def attempt(tier: Tier, outcome: Outcome, usage: Usage) -> Attempt:
    return Attempt(tier, "m", outcome, usage, cost.dollars(usage, PRICES[tier]), 0.0, None, 1.0)


def test_prices_are_per_million_tokens() -> None:
    assert cost.dollars(Usage(1_000_000, 0), TokenPrice(input=0.15, output=0.6)) == 0.15
    assert cost.dollars(Usage(0, 1_000_000), TokenPrice(input=0.15, output=0.6)) == 0.6
    assert cost.dollars(Usage(10, 20), TokenPrice(input=0.15, output=0.6)) == 0.0000135


def test_cached_tokens_cost_what_all_others_do() -> None:
    price = TokenPrice(input=1.0, output=1.0)
    assert cost.dollars(Usage(10, 0, cached_tokens=8), price) == cost.dollars(Usage(10, 0), price)


def test_every_attempt_is_paid_for() -> None:
    attempts = (attempt(Tier.SMALL, Outcome.FAILED, Usage(100, 0)), attempt(Tier.LARGE, Outcome.OK, Usage(100, 50)))
    assert cost.total(attempts) == 0.000225
    assert cost.total(()) == 0.0


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.CANCELLED])
def test_the_counterfactual_is_the_answer_at_the_large_price(outcome: Outcome) -> None:
    attempts = (attempt(Tier.SMALL, Outcome.FAILED, Usage(7, 7)), attempt(Tier.SMALL, outcome, Usage(100, 50)))
    assert cost.all_large(attempts, PRICES) == 0.0002


def test_of_two_answers_the_last_is_the_one_that_the_client_got() -> None:
    attempts = (attempt(Tier.SMALL, Outcome.OK, Usage(7, 7)), attempt(Tier.LARGE, Outcome.OK, Usage(100, 50)))
    assert cost.all_large(attempts, PRICES) == 0.0002


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMEOUT, Outcome.REJECTED])
def test_a_failure_shows_neither_a_saving_nor_a_loss(outcome: Outcome) -> None:
    attempts = (attempt(Tier.SMALL, outcome, Usage(100, 50)),)
    assert cost.all_large(attempts, PRICES) == cost.total(attempts) > 0


@given(COUNT, COUNT)
def test_the_small_tier_never_costs_more_than_the_large_one(prompt: int, completion: int) -> None:
    usage = Usage(prompt, completion)
    assert 0 <= cost.dollars(usage, PRICES[Tier.SMALL]) <= cost.dollars(usage, PRICES[Tier.LARGE])
