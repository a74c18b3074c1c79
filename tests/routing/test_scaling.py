"""The rules of scaling, second by second: what the replicas say in, how many there should be out."""

import math
import sys
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from serve_app.routing.scaling import History, Run, Sample, decide, enough, held, wanted
from serve_app.settings.scaling import Scaling

LARGE = Scaling(waiting=20.0, out_after_s=30.0, in_after_s=600.0, cooldown_s=0.0, idle_s=900.0)
SMALL = Scaling(utilisation=0.7, utilisation_in=0.5, out_after_s=30.0, in_after_s=600.0, cooldown_s=0.0, ahead_s=60.0)
DEPTH = Scaling(depth=16.0, depth_in=4.0, out_after_s=30.0, in_after_s=600.0, cooldown_s=0.0)
EACH = 16.0  # sequences of one replica


class Deployment:
    """Plays Serve: looks each second, does what is decided, and lets a new replica take `loading_s` to run."""

    def __init__(self, scaling: Scaling, *, replicas: int = 1, loading_s: float = 0.0, to_zero: bool = False, most: int = 100) -> None:
        self.scaling, self.to_zero, self.loading_s, self.most = scaling, to_zero, loading_s, most
        self.now, self.running, self.target = 1000.0, replicas, replicas
        self.history = History()
        self.actions: list[tuple[float, int]] = []
        self._ready = self.now

    def pass_time(self, seconds: float, load: Callable[[], float] | float = 0.0, queued: float = 0.0) -> int:
        """`load` is all requests that run or wait. Returns the target at the end."""
        for _ in range(round(seconds)):
            self.now += 1.0
            if self.running < self.target and self.now >= self._ready:
                self.running = self.target
            self._look(load() if callable(load) else load, queued)
        return self.target

    def _look(self, total: float, queued: float) -> None:
        capacity = EACH * self.running
        sample = Sample(
            self.now,
            self.running,
            self.target,
            waiting=max(0.0, total - capacity),
            running=min(total, capacity),
            capacity=capacity,
            queued=queued,
        )
        replicas, self.history = decide(self.scaling, self.history, sample, to_zero=self.to_zero)
        replicas = min(replicas, self.most)
        if replicas != self.target:
            self.actions.append((self.now - 1000.0, replicas))
            self._ready = self.now + self.loading_s
            self.target = replicas
            self.running = min(self.running, replicas)


def test_the_large_tier_grows_by_one_when_more_than_20_wait_for_more_than_30_seconds() -> None:
    tier = Deployment(LARGE)
    assert tier.pass_time(30, EACH + 21) == 1
    assert tier.pass_time(1, EACH + 21) == 2


def test_20_that_wait_are_not_too_many() -> None:
    assert Deployment(LARGE).pass_time(300, EACH + 20) == 1


def test_waiting_requests_count_per_replica() -> None:
    tier = Deployment(LARGE, replicas=2)
    assert tier.pass_time(100, 2 * EACH + 40) == 2
    assert tier.pass_time(32, 2 * EACH + 41) == 3


def test_a_queue_that_was_short_for_a_moment_starts_the_time_anew() -> None:
    tier = Deployment(LARGE)
    tier.pass_time(29, EACH + 50)
    tier.pass_time(1, EACH)
    assert tier.pass_time(30, EACH + 50) == 1
    assert tier.pass_time(1, EACH + 50) == 2


def test_a_queue_that_will_be_gone_before_a_replica_has_loaded_starts_none() -> None:
    falling = iter([EACH + 80.0 - second for second in range(100)])
    tier = Deployment(LARGE)
    assert tier.pass_time(100, lambda: next(falling)) == 1
    slowly = iter([EACH + 80.0 - second / 4 for second in range(100)])
    assert Deployment(LARGE).pass_time(31, lambda: next(slowly)) == 2


def test_requests_that_wait_although_there_are_places_keep_their_replica() -> None:
    """A full KV cache: the engines run fewer than their capacity says."""
    assert enough(LARGE, Sample(0.0, 2, 2, waiting=0.0, running=8.0, capacity=32.0), 1)
    assert not enough(LARGE, Sample(0.0, 2, 2, waiting=3.0, running=8.0, capacity=32.0), 1)


def test_no_second_replica_while_one_is_still_loading() -> None:
    tier = Deployment(LARGE, loading_s=300)
    tier.pass_time(330, EACH + 500)
    assert tier.actions == [(31.0, 2)]
    tier.pass_time(31, EACH + 500)
    assert tier.actions[1:] == [(361.0, 3)], "and then only when it was too much beside the new one for the whole time"


def test_a_load_that_grows_while_a_replica_loads_is_looked_at_when_it_runs() -> None:
    tier = Deployment(SMALL, loading_s=100)
    tier.pass_time(31, 12.0)
    tier.pass_time(99, 100.0)
    assert tier.actions == [(31.0, 2)]


def test_a_replica_that_cannot_be_placed_is_given_up_when_it_is_no_longer_needed() -> None:
    tier = Deployment(LARGE, loading_s=math.inf)
    tier.pass_time(31, EACH + 21)
    tier.pass_time(1000, EACH + 21)
    assert tier.actions == [(31.0, 2)], "it is waited for as long as it is needed"
    tier.pass_time(600, EACH)
    assert tier.actions == [(31.0, 2)]
    tier.pass_time(1, EACH)
    assert [replicas for _, replicas in tier.actions] == [2, 1]


def test_the_small_tier_is_brought_to_70_percent_at_once() -> None:
    tier = Deployment(SMALL, loading_s=60)
    assert tier.pass_time(300, 40.0) == 4  # 40 of 4 x 16 are 63 percent, of 3 x 16 they were 83
    assert [replicas for _, replicas in tier.actions] == [4]


def test_exactly_70_percent_is_enough() -> None:
    """63 of 90, which floating point makes a little more."""
    assert wanted(Scaling(utilisation=0.7), Sample(0.0, 5, 5, running=63.0, capacity=90.0)) == 5
    assert wanted(Scaling(utilisation=0.7), Sample(0.0, 5, 5, running=64.0, capacity=90.0)) == 6


def test_one_last_spike_does_not_start_a_fleet() -> None:
    """It bends the trend, but not to more than twice what was there."""
    tier = Deployment(SMALL)
    tier.pass_time(30, 12.0)
    assert tier.pass_time(1, 160.0) == 3


def test_a_load_that_rises_is_met_where_it_will_be_when_the_replicas_run() -> None:
    rising = iter([11.2 + 0.2 * second for second in range(1, 100)])
    tier = Deployment(SMALL)
    tier.pass_time(31, lambda: next(rising))
    assert tier.target == 3, "17.4 would need two; in a minute it is 29.4"


def test_a_line_fits_what_was_seen() -> None:
    run = Run(since=100.0)
    for at, load in ((100.0, 21.0), (101.0, 23.0), (102.0, 25.0)):
        run = run.seen(Sample(at, 1, 1, running=load))
    assert (run.at(102.0), run.at(110.0), run.at(200.0)) == (pytest.approx(25.0), pytest.approx(41.0), pytest.approx(46.0))
    assert Run(since=0.0).seen(Sample(0.0, 1, 1, running=7.0)).at(50.0) == 7.0, "one look has no trend"


def test_an_unknown_capacity_has_no_utilisation() -> None:
    assert wanted(SMALL, Sample(0.0, 1, 1, running=50.0)) == 1


def test_depth_counts_what_runs_and_what_waits() -> None:
    assert Deployment(DEPTH).pass_time(60, 16.0) == 1
    assert Deployment(DEPTH).pass_time(31, 17.0) == 2


@pytest.mark.parametrize(("scaling", "least", "too_much"), [(LARGE, 16.0, 17.0), (SMALL, 8.0, 8.5), (DEPTH, 4.0, 5.0)])
def test_a_replica_goes_when_one_fewer_was_enough_for_ten_minutes(scaling: Scaling, least: float, too_much: float) -> None:
    assert Deployment(scaling, replicas=2).pass_time(2000, too_much) == 2
    tier = Deployment(scaling, replicas=2)
    assert tier.pass_time(600, least) == 2
    assert tier.pass_time(1, least) == 1


def test_replicas_go_one_at_a_time_with_a_cooldown_between() -> None:
    """Each for all of the ten minutes before: where two were enough meanwhile, the third to go need not be looked at anew."""
    tier = Deployment(LARGE.model_copy(update={"cooldown_s": 60.0}), replicas=4)
    tier.pass_time(3000, 0.0)
    assert tier.actions == [(601.0, 3), (662.0, 2), (723.0, 1)]


def test_fewer_replicas_go_as_far_as_they_were_enough() -> None:
    tier = Deployment(LARGE, replicas=4)
    tier.pass_time(300, 17.0)
    tier.pass_time(330, 16.0)
    assert tier.target == 2, "one replica was enough for five minutes only"
    tier.pass_time(271, 16.0)
    assert tier.target == 1


def test_the_last_replica_stays_where_none_is_not_allowed() -> None:
    assert Deployment(LARGE).pass_time(5000, 0.0) == 1


def test_nothing_follows_a_change_within_the_cooldown() -> None:
    tier = Deployment(LARGE.model_copy(update={"cooldown_s": 120.0}))
    tier.pass_time(400, 1000.0)
    assert [at for at, _ in tier.actions] == [121.0, 242.0, 363.0], "a start counts as a change too: nothing is known of what was before"


def test_a_load_on_the_edge_does_not_flap() -> None:
    """An hour of a load that swings around the threshold with every look."""
    swing = iter([11.0, 11.5, 10.0, 12.0, 9.0] * 720)
    tier = Deployment(SMALL, loading_s=20)
    tier.pass_time(3600, lambda: next(swing))
    assert tier.actions == []
    steady = Deployment(SMALL, loading_s=20)
    steady.pass_time(3600, 11.5)  # 72 percent of one replica, 36 of two: 50 percent of one would be 8
    assert [replicas for _, replicas in steady.actions] == [2]


def test_the_threshold_beyond_the_most_replicas_holds_there() -> None:
    tier = Deployment(LARGE, most=2)
    tier.pass_time(600, 5000.0)
    assert tier.actions == [(31.0, 2)]


def test_an_idle_tier_goes_to_zero_where_that_is_allowed_and_comes_back_with_the_first_request() -> None:
    tier = Deployment(LARGE, to_zero=True)
    assert tier.pass_time(900) == 1
    assert tier.pass_time(1) == 0
    assert tier.pass_time(3000) == 0
    assert tier.pass_time(1, queued=1.0) == 1


def test_one_request_keeps_the_last_replica_for_another_whole_time() -> None:
    tier = Deployment(LARGE, to_zero=True)
    tier.pass_time(890)
    tier.pass_time(1, 1.0)
    assert tier.pass_time(900) == 1


def test_a_request_that_came_and_went_between_two_looks_keeps_the_last_replica() -> None:
    history, target = History(), 1
    for second in range(3600):
        sample = Sample(float(second), 1, 1, capacity=EACH, served=float(second // 60))  # one a minute, in no queue that is seen
        target, history = decide(LARGE, history, sample, to_zero=True)
        assert target == 1
    for second in range(3600, 4442):
        target, history = decide(LARGE, history, Sample(float(second), 1, 1, capacity=EACH, served=59.0), to_zero=True)
    assert target == 0, "and then nobody came"


def test_a_tier_that_starts_from_zero_is_not_started_twice() -> None:
    tier = Deployment(LARGE, replicas=0, loading_s=200, to_zero=True)
    tier.pass_time(150, queued=500.0)
    assert tier.actions == [(1.0, 1)]


def test_two_replicas_never_go_to_zero_at_once() -> None:
    tier = Deployment(LARGE.model_copy(update={"idle_s": 10.0}), replicas=2, to_zero=True)
    tier.pass_time(620)
    assert tier.actions == [(601.0, 1), (612.0, 0)]


def test_a_look_that_showed_nothing_breaks_the_time() -> None:
    tier = Deployment(LARGE)
    tier.pass_time(30, EACH + 50)
    tier.history = held(tier.history)
    assert tier.pass_time(30, EACH + 50) == 1


@pytest.mark.parametrize("jump", [120.0, -120.0])
def test_time_in_which_nobody_looked_does_not_count(jump: float) -> None:
    tier = Deployment(LARGE)
    tier.pass_time(20, EACH + 50)
    tier.now += jump
    assert tier.pass_time(30, EACH + 50) == 1
    assert tier.pass_time(1, EACH + 50) == 2


def test_while_a_replica_leaves_nothing_else_does() -> None:
    tier = Deployment(LARGE, replicas=3)
    tier.target = 2
    assert tier.pass_time(2000, 0.0) == 2


def test_a_new_controller_knows_nothing_and_does_nothing_wild() -> None:
    """Restarted in the middle of an overload and in the middle of a quiet night: the target stays, and both times start anew."""
    for load, replicas in ((500.0, 2), (0.0, 2)):
        tier = Deployment(LARGE, replicas=replicas)
        tier.pass_time(29, load)
        tier.history = History()
        assert tier.pass_time(30, load) == replicas


def test_a_change_from_outside_is_followed_by_a_cooldown() -> None:
    """Raised bounds, or a replica that died."""
    tier = Deployment(LARGE.model_copy(update={"cooldown_s": 100.0}), replicas=2)
    tier.pass_time(599, 0.0)
    tier.running = tier.target = 3
    assert tier.pass_time(100, 0.0) == 3
    assert tier.pass_time(2, 0.0) == 2


def test_rules_that_disagree_add_a_replica_and_keep_it() -> None:
    both = Scaling(waiting=20.0, depth=4.0, depth_in=1.0)
    sample = Sample(0.0, 2, 2, running=9.0, capacity=32.0)
    assert wanted(both, sample) == 3
    assert enough(LARGE, sample, 1)
    assert not enough(both, sample, 1)


def test_the_history_holds_one_number_for_each_replica_and_no_more() -> None:
    tier = Deployment(LARGE, replicas=3)
    tier.pass_time(500, 20.0)
    assert len(tier.history.enough) == 2
    assert sys.getsizeof(tier.history) == sys.getsizeof(History())


@pytest.mark.parametrize("scaling", [LARGE, SMALL, DEPTH])
def test_thresholds_survive_the_way_through_a_replicas_statistics(scaling: Scaling) -> None:
    numbers = scaling.numbers()
    assert all(isinstance(value, float) for value in numbers.values())
    assert Scaling.from_numbers({"num_requests_waiting": 3.0, **numbers}) == scaling


@pytest.mark.parametrize("wrong", [{"waiting": 20.0, "waiting_in": 20.0}, {"utilisation": 0.5, "utilisation_in": 0.6}, {}])
def test_thresholds_that_would_flap_or_do_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Scaling(**wrong)
