"""Load over time, and what became of it. No Ray in here."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SERVICE_S = 8.0


@dataclass(frozen=True)
class Phase:
    """For `seconds`, as much load as `replicas` replicas can just bear."""

    seconds: float
    replicas: float


STEP = (Phase(15, 0.4), Phase(60, 2.5), Phase(85, 0.4))
BURSTY = tuple(phase for _ in range(4) for phase in (Phase(6, 3.0), Phase(19, 0.3)))
FLAT = (Phase(60, 0.6),)
TRACES = {"step": STEP, "bursty": BURSTY, "flat": FLAT}


def arrivals(phases: Iterable[Phase], sequences: int, seed: int = 0) -> list[float]:
    """Seconds from the start at which requests come: by chance, and the same for every policy."""
    dice = random.Random(seed)
    times: list[float] = []
    begin = 0.0
    for phase in phases:
        rate = phase.replicas * sequences / SERVICE_S
        at = begin + dice.expovariate(rate)
        while at < begin + phase.seconds:
            times.append(at)
            at += dice.expovariate(rate)
        begin += phase.seconds
    return times


@dataclass(frozen=True)
class Served:
    """One request's times in seconds from the start of its trace."""

    arrived: float
    started: float
    ended: float


@dataclass(frozen=True)
class Seen:
    """Replicas of a deployment at one moment: those that run, and those that are paid for (also while they start or stop)."""

    at: float
    running: int
    paid: int


@dataclass
class Outcome:
    """What one deployment did with one trace."""

    name: str
    served: list[Served] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    @property
    def queue_seconds(self) -> float:
        return sum(one.started - one.arrived for one in self.served)

    @property
    def replica_seconds(self) -> float:
        return sum(before.paid * (after.at - before.at) for before, after in pairwise(self.seen))

    @property
    def actions(self) -> int:
        """Changes of the number of replicas, each as large as Serve made it."""
        return len(self.changes)

    @property
    def changes(self) -> list[int]:
        running = [one.running for one in self.seen]
        return [after - before for before, after in pairwise(running) if after != before]

    @property
    def reversals(self) -> int:
        """How often a change went against the one before: once for a load that rises and falls."""
        signs = [change > 0 for change in self.changes]
        return sum(before != after for before, after in pairwise(signs))

    def queue_at(self, at: float) -> int:
        return sum(one.arrived <= at < one.started for one in self.served)

    def p95_wait(self) -> float:
        waits = sorted(one.started - one.arrived for one in self.served)
        return waits[int(0.95 * len(waits))] if waits else 0.0


def dominators(one: Outcome, others: Sequence[Outcome]) -> list[str]:
    """Those that queue no more and pay no more than `one`, and differ."""
    return [
        other.name
        for other in others
        if other.queue_seconds <= one.queue_seconds
        and other.replica_seconds <= one.replica_seconds
        and (other.queue_seconds, other.replica_seconds) != (one.queue_seconds, one.replica_seconds)
    ]
