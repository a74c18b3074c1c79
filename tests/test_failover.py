"""Breakers, the retry budget, and who is asked next."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Decision, Reason, Tier
from serve_app.errors import EngineFailed, EngineRejected, EngineTimeout, NotReady, Overloaded
from serve_app.failover import Failover
from serve_app.resilience import Breaker, BreakerState, RetryBudget, Ticket, backoff
from serve_app.settings import BreakerSettings, RetrySettings
from tests.fakes import FakeClock, failover

SMALL = Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65)
LARGE = Decision(Tier.LARGE, Reason.SCORE_ABOVE, 0.65)
FAULT = EngineFailed("broken")


def call(breaker: Breaker) -> Ticket:
    ticket = breaker.admit()
    assert ticket is not None
    return ticket


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed(call(breaker))


def opened(clock: FakeClock) -> Breaker:
    breaker = Breaker(BreakerSettings(failures=3, open_s=10.0), clock)
    fail(breaker, 3)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_a_breaker_opens_after_enough_failures_and_rests() -> None:
    breaker = Breaker(BreakerSettings(failures=3, open_s=10.0), FakeClock())
    fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 1)
    assert (breaker.state, breaker.admit()) == (BreakerState.OPEN, None)


def test_a_few_failures_among_many_successes_do_not_open_it() -> None:
    breaker = Breaker(BreakerSettings(failures=3, ratio=0.5), FakeClock())
    for _ in range(7):
        breaker.succeeded(call(breaker))
    fail(breaker, 6)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 1)
    assert breaker.state is BreakerState.OPEN


def test_failures_of_long_ago_are_forgotten() -> None:
    clock = FakeClock()
    breaker = Breaker(BreakerSettings(failures=3, window_s=30.0), clock)
    fail(breaker, 2)
    clock.advance(31)
    fail(breaker, 1)
    assert breaker.state is BreakerState.CLOSED


def test_after_its_rest_one_probe_decides() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(10)
    assert breaker.state is BreakerState.HALF_OPEN
    probe = call(breaker)
    assert breaker.admit() is None
    breaker.succeeded(probe)
    assert breaker.state is BreakerState.CLOSED
    assert [breaker.admit() is None for _ in range(3)] == [False] * 3


def test_a_failed_probe_opens_it_anew() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(10)
    breaker.failed(call(breaker))
    assert breaker.state is BreakerState.OPEN
    clock.advance(9.9)
    assert breaker.admit() is None
    clock.advance(0.1)
    assert breaker.admit() is not None


def test_calls_from_before_it_opened_neither_close_nor_open_it() -> None:
    clock = FakeClock()
    breaker = Breaker(BreakerSettings(failures=3, open_s=10.0), clock)
    stragglers = [call(breaker) for _ in range(3)]
    fail(breaker, 3)
    breaker.succeeded(stragglers[0])
    assert breaker.state is BreakerState.OPEN
    clock.advance(10)
    probe = call(breaker)
    breaker.failed(stragglers[1])
    breaker.abandoned(stragglers[2])
    assert breaker.admit() is None, "a straggler must not free the probe's place"
    breaker.succeeded(probe)
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_whose_client_left_gives_its_place_to_the_next() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(10)
    breaker.abandoned(call(breaker))
    assert breaker.admit() is not None


def test_a_probe_that_never_ends_does_not_lock_the_tier_out() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(10)
    lost = call(breaker)
    clock.advance(10)
    breaker.succeeded(call(breaker))
    breaker.failed(lost)
    assert breaker.state is BreakerState.CLOSED


@given(st.lists(st.booleans(), max_size=300))
def test_retries_stay_within_the_reserve_and_a_tenth_of_the_requests(wants_retry: list[bool]) -> None:
    budget = RetryBudget(RetrySettings(share=0.1, reserve=10))
    retries = 0
    for wants in wants_retry:
        budget.deposit()
        retries += wants and budget.withdraw()
    assert retries <= 10 + 0.1 * len(wants_retry) + 1e-9


def test_an_outage_is_not_multiplied_by_retries() -> None:
    budget = RetryBudget(RetrySettings(share=0.1, reserve=10))
    retries = 0
    for _ in range(1000):
        budget.deposit()
        retries += budget.withdraw()
    assert 100 <= retries <= 110


@given(st.integers(0, 20), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_jittered_doubling_and_capped(retry: int, chance: float) -> None:
    settings = RetrySettings(backoff_s=0.1, max_backoff_s=2.0)
    assert 0 <= backoff(retry, settings, chance) <= min(2.0, 0.1 * 2**retry)


def after(policy: Failover, decision: Decision, error: BaseException, tries: int = 1) -> Decision | None:
    """What is tried after one failed call of `decision`."""
    admission = policy.begin(decision)
    policy.report(admission, error)
    again = policy.after(admission, error, tries)
    return None if again is None else again.decision


def test_a_broken_small_tier_is_followed_by_the_large_one() -> None:
    again = after(failover(FakeClock()), SMALL, FAULT)
    assert again is not None
    assert (again.tier, again.reason) == (Tier.LARGE, Reason.FALLBACK_ENGINE_ERROR)


def test_a_broken_large_tier_is_asked_again_and_never_replaced_by_the_small_one() -> None:
    assert after(failover(FakeClock()), LARGE, FAULT) == LARGE


@pytest.mark.parametrize("error", [EngineRejected("no"), Overloaded("full"), asyncio.CancelledError(), ValueError("bug")])
def test_only_faults_of_an_engine_are_tried_again(error: BaseException) -> None:
    assert after(failover(FakeClock()), SMALL, error) is None


def test_tries_end_with_the_settings_and_with_the_budget() -> None:
    policy = failover(FakeClock(), most=2, failures=1000)
    assert [after(policy, LARGE, FAULT, tries) is None for tries in (1, 2, 3)] == [False, False, True]
    exhausted = failover(FakeClock(), failures=1000)
    admission = exhausted.begin(LARGE)
    assert [exhausted.after(admission, FAULT, 1) is None for _ in range(11)] == [False] * 10 + [True]


def test_a_retry_that_nobody_may_serve_costs_no_budget() -> None:
    policy = failover(FakeClock(), failures=1)
    admission = policy.begin(LARGE)
    policy.report(admission, FAULT)
    assert [policy.after(admission, FAULT, 1) for _ in range(50)] == [None] * 50
    small = policy.begin(SMALL)
    assert small.decision.tier is Tier.SMALL
    assert policy._budget.has_one()


def rest(policy: Failover, decision: Decision) -> None:
    for _ in range(5):
        policy.report(policy.begin(decision), FAULT)


def test_a_resting_small_tier_is_passed_over_marked() -> None:
    policy = failover(FakeClock())
    rest(policy, SMALL)
    begun = policy.begin(SMALL).decision
    assert (begun.tier, begun.reason) == (Tier.LARGE, Reason.TIER_UNAVAILABLE)
    assert policy.states() == {Tier.SMALL: BreakerState.OPEN, Tier.LARGE: BreakerState.CLOSED}


def test_a_resting_large_tier_is_a_503_unless_degraded_answers_are_allowed() -> None:
    strict, lenient = failover(FakeClock()), failover(FakeClock(), degraded=True)
    rest(strict, LARGE)
    rest(lenient, LARGE)
    with pytest.raises(NotReady) as refused:
        strict.begin(LARGE)
    assert refused.value.retry_after == 10.0
    begun = lenient.begin(LARGE).decision
    assert (begun.tier, begun.reason) == (Tier.SMALL, Reason.DEGRADED)


def test_an_explicit_large_request_is_never_degraded() -> None:
    policy = failover(FakeClock(), degraded=True)
    rest(policy, LARGE)
    with pytest.raises(NotReady):
        policy.begin(Decision(Tier.LARGE, Reason.EXPLICIT_MODEL, 0.65))


@pytest.mark.parametrize("error", [EngineRejected("no"), Overloaded("full"), NotReady("loading"), asyncio.CancelledError()])
def test_client_errors_and_backpressure_never_open_a_breaker(error: BaseException) -> None:
    policy = failover(FakeClock())
    for _ in range(50):
        policy.report(policy.begin(SMALL), error)
    assert policy.states()[Tier.SMALL] is BreakerState.CLOSED


def test_timeouts_open_a_breaker() -> None:
    policy = failover(FakeClock())
    for _ in range(5):
        policy.report(policy.begin(SMALL), EngineTimeout("late"))
    assert policy.states()[Tier.SMALL] is BreakerState.OPEN
