"""Engines whose arithmetic is easy to follow, and short windows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import simpy

from serve_app.domain import Tier
from serve_app.planning.config import Bounds, Engines, Service, Traffic
from serve_app.planning.pool import later
from serve_app.planning.replica import Job, Replica
from serve_app.planning.simulation import Setting
from serve_app.planning.speeds import EngineSpeeds
from serve_app.planning.traffic import ANY, Asks
from serve_app.settings.scaling import Scaling


def speeds(**changes: Any) -> EngineSpeeds:
    """A step of 10 ms, whatever is in it; ten sequences at a time."""
    given = {"instance": "g6e.xlarge", "source": "made up", "base_s": 0.01, "max_num_seqs": 10, "kv_tokens": 1_000_000, **changes}
    return EngineSpeeds.model_validate(given)


def engines(**changes: Any) -> Engines:
    large = speeds(instance="g6e.12xlarge", base_s=0.02)
    return Engines.model_validate({"small": speeds(), "large": large, "service": Service(route_s=0.0), **changes})


def setting(*, most: int = 1, **changes: Any) -> Setting:
    """One replica of each tier, scaled up to `most`."""
    rules = {Tier.SMALL: Scaling(utilisation=0.7), Tier.LARGE: Scaling(waiting=20)}
    given: dict[str, Any] = {
        "engines": engines(),
        "traffic": Traffic(),
        "bounds": {tier: Bounds(scaling=rule, max_replicas=most) for tier, rule in rules.items()},
        "initial": dict.fromkeys(Tier, 1),
        "threshold": 0.5,
        **changes,
    }
    return Setting(**given)


def asks(rate: float, seconds: float, *, output: int = 50, seed: int = 0) -> Asks:
    """Poisson arrivals of equal requests, scores and doubts spread evenly."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
    count = len(at)
    same, spread = np.full(count, float(output)), rng.random((2, count))
    return Asks(at, np.full(count, 20.0), same, same, spread[0], spread[1], np.full(count, float(ANY)))


def through(speed: EngineSpeeds, jobs: list[Job]) -> Replica:
    """All jobs through one replica, each at its time."""
    env = simpy.Environment()
    replica = Replica(env, speed, lambda _: None)

    def submit(job: Job) -> None:
        later(env, job.came, lambda: replica.submit(job))

    for job in jobs:
        submit(job)
    env.run()
    return replica


def no_progress(items: list[Any], label: str) -> Iterator[Any]:
    yield from items
