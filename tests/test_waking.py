"""Tiers that sleep: what is known of their starts, and what becomes of the requests that need them."""

import asyncio
from typing import Any

import pytest

from serve_app.domain import Decision, Outcome, Reason, Tier, TierLoad
from serve_app.errors import EngineFailed, NotReady, Overloaded
from serve_app.pipeline import Answer, Pipeline
from serve_app.resilience import BreakerState
from serve_app.settings import EarlyExit, Live, WakingSettings
from serve_app.waking import CURRENT_S, UNANSWERED_S, Fleet, Starts
from tests.fakes import FakeClock, World, make_request, plain_answer, read_all, soon, stream_script, until
from tests.pipelines import CODE, EASY, HARD, only_record, outcomes

NEVER = float("-inf")
REPORT = TierLoad(replicas=1, waiting=2, running=3, capacity=4, as_of=0.0)


class Sleeper:
    """A tier as Serve and its replicas tell of it."""

    def __init__(self, *, guess_s: float = 120.0) -> None:
        self.clock = FakeClock()
        self.fleet: Fleet | None = None
        self.heard = NEVER
        self.told: float | None = None
        self.starts = Starts(lambda: self.fleet, heard=lambda: self.heard, told=lambda: self.told, guess_s=guess_s, clock=self.clock)

    def says(self, running: int = 0, starting: int = 0, target: int = 0, *, may_sleep: bool = True, broken: bool = False) -> None:
        """Serve's word, as of now."""
        self.fleet = Fleet(target, running, starting, may_sleep, broken, self.clock.monotonic())
        self.starts.observe()

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.starts.observe()

    def reports(self) -> None:
        self.heard = self.clock.monotonic()
        self.starts.observe()

    @property
    def eta(self) -> float | None:
        return self.starts.eta()


@pytest.mark.parametrize(
    ("word", "dormant"),
    [
        ({}, True),
        ({"starting": 1, "target": 1}, True),
        ({"running": 1, "target": 1}, False),
        ({"may_sleep": False}, False),
        ({"may_sleep": False, "starting": 1, "target": 1}, False),
        ({"broken": True, "target": 1}, False),
    ],
)
def test_a_tier_is_dormant_when_none_of_its_replicas_runs_and_none_need(word: dict[str, Any], dormant: bool) -> None:
    sleeper = Sleeper()
    sleeper.says(**word)
    assert sleeper.starts.dormant() is dormant


def test_nobody_is_dormant_whom_serve_has_not_told_of_lately() -> None:
    sleeper = Sleeper()
    assert not sleeper.starts.dormant()
    sleeper.says()
    sleeper.later(CURRENT_S)
    assert sleeper.starts.dormant()
    sleeper.later(0.1)
    assert not sleeper.starts.dormant()


def test_a_replica_that_answers_outdates_what_serve_said_before() -> None:
    sleeper = Sleeper()
    sleeper.says()
    sleeper.later(1.0)
    sleeper.reports()
    assert not sleeper.starts.dormant()
    sleeper.later(1.0)
    sleeper.says()
    assert sleeper.starts.dormant(), "Serve's word is the later one again"


def test_a_start_is_guessed_then_measured_and_remembered() -> None:
    sleeper = Sleeper(guess_s=120.0)
    sleeper.says()
    assert sleeper.eta == 120.0
    sleeper.says(starting=1, target=1)
    sleeper.later(15.0)
    assert sleeper.eta == 105.0
    sleeper.later(5.0)
    sleeper.says(running=1, target=1)
    assert sleeper.eta is None
    sleeper.later(5.0)
    sleeper.says()
    assert sleeper.eta == 20.0, "as long as the last one took"


def test_a_start_is_over_with_the_first_report_and_counted_from_the_call_for_it() -> None:
    sleeper = Sleeper()
    sleeper.says()
    sleeper.starts.roused()
    sleeper.later(10.0)
    sleeper.says(starting=1, target=1)
    sleeper.later(10.0)
    sleeper.reports()
    sleeper.later(5.0)
    sleeper.says()
    assert sleeper.eta == 20.0


def test_a_start_that_was_given_up_says_nothing_of_how_long_one_takes() -> None:
    sleeper = Sleeper(guess_s=20.0)
    for _ in range(10):
        sleeper.clock.advance(10.0)
        sleeper.reports()
        sleeper.says(running=1, starting=1, target=2)
    sleeper.says(running=1, target=1)
    sleeper.clock.advance(1.0)
    sleeper.says()
    assert sleeper.eta == 20.0


def test_a_second_replica_s_start_is_measured_too() -> None:
    sleeper = Sleeper(guess_s=20.0)
    sleeper.says(running=1, starting=1, target=2)
    sleeper.clock.advance(15.0)
    sleeper.says(running=2, target=2)
    sleeper.clock.advance(1.0)
    sleeper.says()
    assert sleeper.eta == 15.0


def test_what_a_replica_tells_of_its_start_is_a_better_guess() -> None:
    sleeper = Sleeper(guess_s=120.0)
    sleeper.told = 45.0
    sleeper.says()
    assert sleeper.eta == 45.0
    load = sleeper.starts.seen(None)
    assert load is not None
    assert (load.replicas, load.cold_start, load.cold_eta, load.target) == (0, 45.0, 45.0, 0)


def test_a_start_that_takes_longer_than_ever_is_not_said_to_be_over() -> None:
    sleeper = Sleeper(guess_s=20.0)
    sleeper.says(starting=1, target=1)
    sleeper.later(19.9)
    assert sleeper.eta == 2.0
    sleeper.clock.advance(100.0)
    assert sleeper.eta == 2.0


def test_a_call_that_moves_nobody_began_no_start() -> None:
    sleeper = Sleeper(guess_s=20.0)
    sleeper.starts.roused()
    for _ in range(int(UNANSWERED_S) + 1):
        sleeper.clock.advance(1.0)
        sleeper.says()
    assert sleeper.eta == 20.0


def test_a_second_replica_on_its_way_has_an_eta_too_and_the_first_keeps_its_report() -> None:
    sleeper = Sleeper(guess_s=30.0)
    sleeper.reports()
    sleeper.clock.advance(1.0)
    sleeper.says(running=1, starting=1, target=2)
    load = sleeper.starts.seen(REPORT)
    assert load is not None
    assert (load.replicas, load.running, load.starting, load.target, load.cold_eta) == (1, 3, 1, 2, 30.0)


def test_a_report_of_a_replica_that_is_gone_is_not_passed_on() -> None:
    sleeper = Sleeper()
    sleeper.reports()
    sleeper.clock.advance(1.0)
    sleeper.says()
    load = sleeper.starts.seen(REPORT)
    assert load is not None
    assert (load.replicas, load.running, load.capacity) == (0, 0, 0)


def test_a_busy_replica_that_does_not_report_is_unknown_not_absent() -> None:
    sleeper = Sleeper()
    sleeper.says(running=1, target=1)
    assert sleeper.starts.seen(None) is None
    assert sleeper.starts.seen(REPORT) is not None


def asleep(policy: str = "wait", *, score: float = HARD, **settings: Any) -> World:
    """The large tier sleeps, and takes 30 s to wake as far as anyone knows."""
    world = World(score=score)
    world.waking = WakingSettings(policy=policy, **settings)
    world.large.sleeping = True
    world.large.known_load = TierLoad(0, 0, 0, 0, 0.0, cold_eta=30.0)
    return world


def asking(pipeline: Pipeline, **request: Any) -> "asyncio.Task[Answer]":
    return asyncio.create_task(pipeline.answer(make_request(**request)))


async def test_a_request_waits_for_the_tier_and_is_answered_by_it() -> None:
    world = asleep()
    pipeline = world.pipeline()
    answer = asking(pipeline)
    await until(lambda: world.large.wake_calls)
    assert (pipeline.waiting(Tier.LARGE), world.large.calls) == (1, [])
    world.large.woken.set()
    decision = (await soon(answer)).decision
    assert (decision.tier, decision.reason) == (Tier.LARGE, Reason.SCORE_ABOVE)
    assert pipeline.waiting(Tier.LARGE) == 0
    assert outcomes(await only_record(world)) == [(Tier.LARGE, Outcome.OK)]


async def test_a_stream_waits_longer_for_a_start_than_for_a_first_token() -> None:
    world = asleep()
    world.timeouts = world.timeouts.model_copy(update={"first_token_s": 0.01})
    world.large.script = list(stream_script("a", "b"))
    answer = asking(world.pipeline(), stream=True)
    await asyncio.sleep(0.05)
    world.large.woken.set()
    assert "[DONE]" in await read_all((await soon(answer)).events)


async def test_many_requests_make_one_call_for_a_replica() -> None:
    world = asleep()
    pipeline = world.pipeline()
    answers = [asking(pipeline, id=f"tw-{number}") for number in range(5)]
    await until(lambda: pipeline.waiting(Tier.LARGE) == 5)
    world.large.woken.set()
    assert {(await soon(answer)).decision.tier for answer in answers} == {Tier.LARGE}
    assert world.large.wake_calls == 1


async def test_who_waits_too_long_is_told_how_long_it_takes() -> None:
    world = asleep(max_wait_s=0.02)
    with pytest.raises(NotReady, match="about 30 s") as caught:
        await soon(world.pipeline().answer(make_request()))
    assert caught.value.retry_after == 30.0
    assert (await only_record(world)).attempts == ()
    assert world.failover.states()[Tier.LARGE] is BreakerState.CLOSED


async def test_the_request_s_own_deadline_bounds_its_wait() -> None:
    world = asleep()
    world.timeouts = world.timeouts.model_copy(update={"request_s": 0.02})
    with pytest.raises(NotReady):
        await soon(world.pipeline().answer(make_request()))


async def test_only_so_many_may_wait() -> None:
    world = asleep(max_waiting=2)
    pipeline = world.pipeline()
    answers = [asking(pipeline, id=f"tw-{number}") for number in range(2)]
    await until(lambda: pipeline.waiting(Tier.LARGE) == 2)
    with pytest.raises(Overloaded) as caught:
        await soon(pipeline.answer(make_request(id="tw-3")))
    assert caught.value.retry_after == 30.0
    world.large.woken.set()
    await soon(asyncio.gather(*answers))


async def test_a_client_that_leaves_makes_room_and_the_call_goes_on() -> None:
    world = asleep(max_waiting=1)
    pipeline = world.pipeline()
    first = asking(pipeline)
    await until(lambda: pipeline.waiting(Tier.LARGE))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asking(pipeline, id="tw-2")
    await until(lambda: pipeline.waiting(Tier.LARGE))
    world.large.woken.set()
    assert (await soon(second)).decision.tier is Tier.LARGE
    assert world.large.wake_calls == 1


async def test_waiting_is_no_failure_however_often_it_ends_in_none(monkeypatch: pytest.MonkeyPatch) -> None:
    world = asleep(max_wait_s=0.005)
    monkeypatch.setattr("serve_app.waking.PAUSE_S", 0.001)
    pipeline = world.pipeline()
    for number in range(20):
        with pytest.raises(NotReady):
            await soon(pipeline.answer(make_request(id=f"tw-{number}")))
    assert world.failover.states()[Tier.LARGE] is BreakerState.CLOSED


async def test_a_breaker_s_probe_that_only_waited_gives_its_place_to_the_next() -> None:
    world = asleep(max_wait_s=0.005)
    for _ in range(5):
        world.failover.report(world.failover.begin(Decision(Tier.LARGE, Reason.SCORE_ABOVE, 0.65)), EngineFailed("broken"))
    world.clock.advance(10.0)
    pipeline = world.pipeline()
    for number in range(2):
        with pytest.raises(NotReady, match="is starting"):
            await soon(pipeline.answer(make_request(id=f"tw-{number}")))


async def test_a_call_that_fails_is_made_again_while_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.waking.PAUSE_S", 0.001)
    world = asleep()
    failures = [EngineFailed("gone"), EngineFailed("gone")]

    async def wake() -> None:
        if failures:
            raise failures.pop()
        world.large.sleeping = False

    monkeypatch.setattr(world.large, "wake", wake)
    assert (await soon(world.pipeline().answer(make_request()))).decision.tier is Tier.LARGE


async def test_a_tier_that_fell_asleep_as_the_request_came_is_waited_for() -> None:
    world = asleep()
    world.large.sleeping = False

    def went_to_sleep() -> None:
        world.large.sleeping = True
        world.large.script = [plain_answer("large-model")]
        raise NotReady("The model is starting.")

    world.large.script = [went_to_sleep]
    answer = asking(world.pipeline())
    await until(lambda: world.large.wake_calls)
    world.large.woken.set()
    assert (await soon(answer)).decision.tier is Tier.LARGE
    assert world.failover.states()[Tier.LARGE] is BreakerState.CLOSED


async def test_the_small_tier_answers_marked_while_the_large_one_is_woken() -> None:
    world = asleep("small")
    decision = (await soon(world.pipeline().answer(make_request()))).decision
    assert (decision.tier, decision.reason) == (Tier.SMALL, Reason.TIER_UNAVAILABLE)
    await until(lambda: world.large.wake_calls == 1)
    assert outcomes(await only_record(world)) == [(Tier.SMALL, Outcome.OK)]


async def test_an_easy_request_wakes_nobody() -> None:
    world = asleep("small", score=EASY)
    decision = (await soon(world.pipeline().answer(make_request()))).decision
    assert (decision.tier, decision.reason, world.large.wake_calls) == (Tier.SMALL, Reason.SCORE_BELOW, 0)


async def test_a_dry_run_wakes_nobody() -> None:
    world = asleep("small")
    decision = await soon(world.pipeline().explain(make_request()))
    await asyncio.sleep(0)
    assert (decision.tier, decision.reason, world.large.wake_calls) == (Tier.SMALL, Reason.TIER_UNAVAILABLE, 0)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [({"features": CODE}, Reason.TIER_UNAVAILABLE), ({"earlier": ("prove it",)}, Reason.TIER_UNAVAILABLE)],
)
async def test_code_and_hard_conversations_are_marked_too(request_: dict[str, Any], reason: Reason) -> None:
    world = asleep("small", score=EASY)
    world.embedder.by_text = lambda text: HARD if text == "prove it" else EASY
    decision: Decision = (await soon(world.pipeline().answer(make_request(**request_)))).decision
    assert (decision.tier, decision.reason) == (Tier.SMALL, reason)
    await until(lambda: world.large.wake_calls == 1)


async def test_who_names_the_large_tier_waits_for_it_whatever_the_policy() -> None:
    world = asleep("small")
    answer = asking(world.pipeline(), explicit_tier=Tier.LARGE)
    await until(lambda: world.large.wake_calls)
    world.large.woken.set()
    decision = (await soon(answer)).decision
    assert (decision.tier, decision.reason) == (Tier.LARGE, Reason.EXPLICIT_MODEL)


async def test_a_doubtful_answer_is_given_while_the_large_tier_sleeps_and_wakes_it() -> None:
    world = asleep(score=EASY)
    world.live = Live(early_exit=EarlyExit(enabled=True, threshold=-1.0))
    world.small.script[0]["choices"][0]["logprobs"] = {"content": [{"token": "Hi", "logprob": -3.0, "top_logprobs": []}]}
    decision = (await soon(world.pipeline().answer(make_request()))).decision
    assert (decision.tier, decision.reason) == (Tier.SMALL, Reason.SCORE_BELOW)
    await until(lambda: world.large.wake_calls == 1)
    assert world.large.calls == []


async def test_a_mirror_wakes_nobody() -> None:
    world = asleep(score=EASY)
    world.live = Live(mirror_share=1.0)
    await soon(world.pipeline().answer(make_request()))
    await asyncio.sleep(0)
    assert (world.observer.mirrors, world.large.wake_calls) == (["shed"], 0)


async def test_a_small_tier_that_breaks_is_replaced_by_a_large_one_that_wakes() -> None:
    world = asleep(score=EASY)
    world.small.script = [EngineFailed("broken")]
    answer = asking(world.pipeline())
    await until(lambda: world.large.wake_calls)
    world.large.woken.set()
    decision = (await soon(answer)).decision
    assert (decision.tier, decision.reason) == (Tier.LARGE, Reason.FALLBACK_ENGINE_ERROR)
