"""Replicas that come cold and leave drained."""

import random

import pytest
import simpy

from serve_app.planning.config import Bounds
from serve_app.planning.pool import Pool
from serve_app.planning.replica import Job
from serve_app.planning.speeds import EngineSpeeds
from serve_app.settings.scaling import Scaling
from tests.planning.common import speeds


def pool(env: simpy.Environment, engine: EngineSpeeds, *, most: int = 5, initial: int = 1, done: list[Job] | None = None) -> Pool:
    bounds = Bounds(scaling=Scaling(waiting=20, in_after_s=100.0), max_replicas=most)
    ended = [] if done is None else done
    return Pool(env, engine, bounds, initial=initial, finished=ended.append, rng=random.Random(0))


def test_a_new_replica_is_paid_for_before_it_answers() -> None:
    env = simpy.Environment()
    tier = pool(env, speeds(cold_start_s=300.0), most=2)
    for index in range(100):
        tier.submit(Job(index, 0.0, 1, 100_000))  # 1,000 s each, ten at a time
    env.run(until=200.0)
    assert (tier.replicas, tier.instances) == (1, 2)
    env.run(until=420.0)
    assert tier.replicas == 2
    account = tier.account()
    assert account.starting == pytest.approx(300.0)
    launched = 420.0 - (account.instances - 420.0)
    assert 30.0 <= launched <= 100.0  # what must last, and the cooldown that every pool begins with


def test_no_second_replica_while_one_is_cold() -> None:
    env = simpy.Environment()
    tier = pool(env, speeds(cold_start_s=5000.0))
    for index in range(500):
        tier.submit(Job(index, 0.0, 1, 100_000))
    env.run(until=3000.0)
    assert tier.instances == 2


def test_bounds_hold() -> None:
    env = simpy.Environment()
    tier = pool(env, speeds(), most=2, initial=7)
    for index in range(900):
        tier.submit(Job(index, 0.0, 1, 100_000))
    env.run(until=3000.0)
    assert (tier.instances, tier.peak) == (2, 2)


def test_a_replica_that_leaves_finishes_and_is_paid_until_then() -> None:
    env = simpy.Environment()
    done: list[Job] = []
    tier = pool(env, speeds(), initial=2, done=done)
    for index in range(4):
        tier.submit(Job(index, 0.0, 1, 50_000))  # 500 s each: one replica could run them all
    env.run(until=300.0)
    assert (tier.replicas, tier.instances) == (1, 2)
    env.run(until=1000.0)
    assert len(done) == 4
    assert tier.instances == 1
    assert tier.account().instances == pytest.approx(1000.0 + 500.0, abs=1.0)


def test_busy_time_of_those_that_left_is_not_forgotten() -> None:
    env = simpy.Environment()
    tier = pool(env, speeds(), initial=2)
    for index in range(4):
        tier.submit(Job(index, 0.0, 1, 50_000))
    env.run(until=1000.0)
    assert tier.account().sequences == pytest.approx(4 * 500.0, rel=0.01)
