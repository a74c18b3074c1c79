"""Who may enter a tier's queue: the rules one by one, then an overload of four times the capacity on a simulated clock."""

import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, repeat, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.admission import Gate, Pace, Place
from serve_app.errors import Overloaded
from tests.fakes import FakeClock


class Tier:
    """A gate over a tier of `capacity` sequences (None: unknown), which a test fills and empties."""

    def __init__(self, capacity: int | None = 4, *, most: int = 100, max_wait_s: float = 2.0) -> None:
        self.clock = FakeClock()
        self.capacity = capacity
        self.gate = Gate(most, max_wait_s, self.clock, lambda: self.capacity)
        self.places: deque[Place] = deque()

    def enter(self, times: int = 1) -> None:
        self.places.extend(self.gate.enter() for _ in range(times))

    def finish(self, times: int = 1) -> None:
        for _ in range(times):
            self.places.popleft().leave()

    def refused(self) -> float:
        with pytest.raises(Overloaded, match=r"^The model's queue is full\.$") as refusal:
            self.gate.enter()
        assert refusal.value.retry_after is not None
        return refusal.value.retry_after

    def work(self, rate: float, seconds: float) -> None:
        """Stay saturated, finishing `rate` a second; the queue keeps its length."""
        for _ in range(round(rate * seconds)):
            self.clock.advance(1 / rate)
            self.finish()
            self.places.append(self.gate.enter())

    def spend(self, seconds: float, error: Exception | None = None) -> None:
        """One request in a block of its own."""
        with self.gate.enter():
            self.clock.advance(seconds)
            if error is not None:
                raise error


def working(rate: float = 2.0, **changes: int | float) -> Tier:
    """Every sequence taken, and its speed known: `rate` a second."""
    tier = Tier(4, **changes)  # type: ignore[arg-type]
    tier.enter(4)
    tier.work(rate, seconds=Pace.STEADY / rate)
    return tier


def test_more_than_the_most_are_refused_even_where_nothing_is_known() -> None:
    tier = Tier(None, most=3, max_wait_s=7.0)
    tier.enter(3)
    assert (tier.refused(), tier.gate.in_flight) == (7.0, 3)
    tier.finish()
    tier.enter()


def test_before_the_speed_is_known_only_the_count_is_bounded() -> None:
    tier = Tier(4, most=50, max_wait_s=0.1)
    tier.enter(50)
    tier.refused()
    assert tier.gate.expected_wait_s() is None


def test_a_newcomer_is_refused_when_its_expected_wait_is_too_long() -> None:
    """At 2 a second the fifth of those that wait would wait 2.5 s, and the fourth 2 s."""
    tier = working(rate=2.0, max_wait_s=2.0)
    tier.enter(4)
    assert tier.gate.expected_wait_s() == pytest.approx(2.5)
    tier.refused()
    tier.finish()
    tier.enter()


def test_a_free_sequence_is_never_refused() -> None:
    """However slow the tier was: a low rate that is out of date would lock the gate for ever."""
    tier = working(rate=0.1, max_wait_s=1.0)
    tier.refused()
    tier.clock.advance(1e6)
    tier.refused()
    tier.finish(2)
    assert tier.gate.expected_wait_s() == 0.0
    tier.enter(2)


def test_an_idle_time_is_not_slowness() -> None:
    tier = working(rate=2.0, max_wait_s=2.0)
    tier.finish(4)
    tier.clock.advance(200.0)
    tier.enter(8)
    assert tier.gate.expected_wait_s() == pytest.approx(2.5, rel=0.05)


def test_a_light_load_tells_nothing_of_the_speed() -> None:
    tier = Tier(4)
    for _ in range(100):
        tier.enter()
        tier.clock.advance(1.0)
        tier.finish()
    tier.enter(40)
    assert tier.gate.expected_wait_s() is None


def test_a_burst_of_answers_in_the_first_moment_is_no_rate() -> None:
    tier = Tier(4)
    tier.enter(40)
    tier.clock.advance(0.01)
    tier.finish(20)
    assert tier.gate.expected_wait_s() is None


def test_what_is_remembered_of_the_speed_is_bounded() -> None:
    tier = Tier(4)
    tier.enter(4)
    tier.work(rate=3.0, seconds=1000.0)
    assert len(tier.gate._pace._buckets) == Pace.BUCKETS


def test_the_speed_of_long_ago_is_forgotten() -> None:
    tier = working()
    tier.finish(4)
    tier.clock.advance(Pace.FORGET_S + 1.0)
    tier.enter(4)
    assert tier.gate.expected_wait_s() is None


def test_the_rate_follows_a_tier_that_gets_faster() -> None:
    tier = working(rate=0.5, max_wait_s=10.0)
    assert tier.gate.expected_wait_s() == pytest.approx(2.0)
    tier.work(rate=4.0, seconds=Pace.WINDOW_S + Pace.BUCKET_S)
    assert tier.gate.expected_wait_s() == pytest.approx(0.25, rel=0.1)


def test_a_tier_that_hangs_takes_no_more_until_it_works_again() -> None:
    tier = working(rate=2.0, max_wait_s=2.0)
    tier.clock.advance(3600.0)
    assert tier.refused() == 60.0
    tier.work(rate=2.0, seconds=Pace.STEADY / 2.0)
    assert tier.gate.expected_wait_s() == pytest.approx(0.5, rel=0.1)


def test_a_slow_tier_is_slow_and_not_unknown() -> None:
    """A minute without five answers is no lack of evidence."""
    tier = Tier(4, max_wait_s=30.0)
    tier.enter(4)
    tier.clock.advance(Pace.SLOW_S)
    assert tier.gate.expected_wait_s() == pytest.approx(60.0)
    tier.refused()


def test_clients_that_leave_do_not_make_a_tier_fast() -> None:
    tier = working(rate=2.0, max_wait_s=100.0)
    tier.enter(40)
    for _ in range(40):
        tier.places.pop().leave(finished=False)
    assert tier.gate.expected_wait_s() == pytest.approx(0.5)
    assert tier.gate.in_flight == 4


def test_a_place_is_left_once() -> None:
    tier = Tier()
    place = tier.gate.enter()
    tier.enter()
    place.leave()
    place.leave()
    place.leave(finished=False)
    assert tier.gate.in_flight == 1


def test_a_place_is_left_when_its_block_ends() -> None:
    tier = Tier()
    with tier.gate.enter():
        assert tier.gate.in_flight == 1
    with pytest.raises(ValueError, match="broken"), tier.gate.enter():
        raise ValueError("broken")
    assert tier.gate.in_flight == 0


def test_only_what_finished_counts_when_blocks_end() -> None:
    tier = Tier(1)
    for _ in range(8):
        with pytest.raises(ValueError, match="broken"):
            tier.spend(1.0, ValueError("broken"))
    tier.enter()
    assert tier.gate.expected_wait_s() is None
    tier.places.pop().leave(finished=False)
    for _ in range(8):
        tier.spend(1.0)
    tier.enter()
    assert tier.gate.expected_wait_s() == pytest.approx(2.0)


def test_retry_after_is_the_time_until_the_queue_is_short_enough() -> None:
    """At 0.5 a second, with 10 waiting: the newcomer would wait 22 s, which is 12 s too long."""
    tier = working(rate=0.5, max_wait_s=100.0)
    tier.enter(10)
    tier.gate._max_wait_s = 10.0
    assert tier.refused() == pytest.approx(12.0)


def test_those_sent_away_together_do_not_come_back_together() -> None:
    """Each gets its turn, and nobody is kept away for more than `max_wait_s` by turns that others may not take."""
    tier = working(rate=0.5, max_wait_s=10.0)
    tier.enter(5)
    waits = [tier.refused() for _ in range(10)]
    assert waits == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 12.0, 12.0, 12.0, 12.0])
    tier.work(rate=0.5, seconds=60.0)
    assert tier.refused() == pytest.approx(2.0)


def test_retry_after_counts_the_places_beyond_the_most() -> None:
    tier = working(rate=0.25, most=4, max_wait_s=100.0)
    assert tier.refused() == pytest.approx(4.0)


def test_without_a_replica_only_the_count_is_bounded() -> None:
    """Nothing is slow yet while there is nothing to be slow."""
    tier = Tier(0, most=10)
    tier.enter(10)
    tier.clock.advance(600.0)
    tier.refused()
    assert tier.gate.expected_wait_s() is None


def test_replicas_that_come_and_go_change_the_bound_at_once() -> None:
    tier = working(rate=2.0, max_wait_s=2.0)
    tier.enter(4)
    tier.refused()
    tier.capacity = 16
    tier.enter(8)
    tier.capacity = 4
    tier.refused()


@given(st.lists(st.tuples(st.sampled_from("eflc"), st.floats(0.0, 30.0)), max_size=80), st.integers(1, 6), st.integers(1, 12))
def test_whatever_happens_the_bounds_hold(steps: list[tuple[str, float]], capacity: int, most: int) -> None:
    tier = Tier(capacity, most=most, max_wait_s=1.0)
    for what, seconds in steps:
        tier.clock.advance(seconds)
        if what == "e":
            wait, full = tier.gate.expected_wait_s(), tier.gate.in_flight >= most
            if full or (wait or 0.0) > 1.0:
                assert full or tier.gate.in_flight >= (tier.capacity or 0)
                assert 1.0 <= tier.refused() <= 60.0
            else:
                tier.enter()
        elif what == "c":
            tier.capacity = None if tier.capacity else capacity
        elif tier.places:
            tier.places.popleft().leave(finished=what == "f")
        assert tier.gate.in_flight == len(tier.places) <= most


@dataclass
class Run:
    """An overload: Poisson arrivals, exponential service on `capacity` sequences, first come first served."""

    capacity: int
    service_s: float
    max_wait_s: float
    most: int = 10_000
    seed: int = 1
    waits: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clock = FakeClock()
        self.started = self.clock.monotonic()
        self.gate = Gate(self.most, self.max_wait_s, self.clock, lambda: self.capacity)
        self.queue: deque[tuple[float, Place]] = deque()
        self.running: list[tuple[float, int, Place]] = []
        self.order = 0
        self.longest = 0

    @property
    def now(self) -> float:
        return self.clock.monotonic() - self.started

    def offer(self, times_capacity: float, seconds: float) -> None:
        rate = times_capacity * self.capacity / self.service_s
        gaps: Iterator[float] = (self.random.expovariate(rate) for _ in repeat(None))
        until = self.now + seconds
        for arrival in takewhile(lambda at: at < until, accumulate(gaps, initial=self.now)):
            self.run_until(arrival)
            self.arrive()
        self.run_until(until)

    def arrive(self) -> None:
        try:
            self.queue.append((self.now, self.gate.enter()))
        except Overloaded as refusal:
            self.refusals.append(refusal.retry_after or 0.0)
        self.start()
        self.longest = max(self.longest, len(self.queue))

    def start(self) -> None:
        while self.queue and len(self.running) < self.capacity:
            arrived, place = self.queue.popleft()
            self.waits.append(self.now - arrived)
            self.order += 1
            heapq.heappush(self.running, (self.now + self.random.expovariate(1 / self.service_s), self.order, place))

    def run_until(self, moment: float) -> None:
        while self.running and self.running[0][0] <= moment:
            at, _, place = heapq.heappop(self.running)
            self.clock.advance(max(0.0, at - self.now))
            place.leave()
            self.finished.append(self.now)
            self.start()
        self.clock.advance(max(0.0, moment - self.now))

    def drain(self) -> None:
        while self.running:
            self.run_until(self.running[0][0])


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("capacity", "service_s", "max_wait_s"), [(16, 1.0, 5.0), (64, 8.0, 10.0), (8, 1.0, 5.0)], ids=["fast", "wide", "narrow"]
)
def test_four_times_the_capacity_for_two_minutes(capacity: int, service_s: float, max_wait_s: float, seed: int) -> None:
    run = Run(capacity, service_s, max_wait_s, seed=seed)
    run.offer(times_capacity=4.0, seconds=120.0)

    ideal = capacity / service_s
    assert len(run.finished) / 120.0 == pytest.approx(ideal, rel=0.1)
    waits = sorted(run.waits)
    assert waits[int(0.99 * len(waits))] < 1.5 * max_wait_s
    assert len(run.refusals) > 2 * len(run.finished)
    assert all(1.0 <= refusal <= 60.0 for refusal in run.refusals)

    assert run.longest < 2.0 * max_wait_s * ideal + 20

    stopped = run.now
    run.drain()
    assert run.gate.in_flight == 0
    assert run.now - stopped < max_wait_s + 10 * service_s
    run.arrive()
    assert run.waits[-1] == 0.0


def test_after_an_overload_a_normal_load_is_not_refused() -> None:
    run = Run(capacity=16, service_s=1.0, max_wait_s=5.0)
    run.offer(times_capacity=4.0, seconds=120.0)
    run.offer(times_capacity=0.5, seconds=10.0)
    refused = len(run.refusals)
    run.offer(times_capacity=0.5, seconds=120.0)
    assert len(run.refusals) == refused
    assert max(run.waits[-500:]) < 0.5


def test_the_count_bound_alone_holds_before_the_first_answers() -> None:
    run = Run(capacity=4, service_s=1000.0, max_wait_s=1e9, most=20)
    run.offer(times_capacity=4000.0, seconds=10.0)
    assert run.gate.in_flight == 20
    assert min(run.refusals) >= 1.0
