"""One window of traffic through one way to route: scores, threshold, queues, early exit, two tiers. By seed, the same every time."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import simpy

from serve_app.admission import Gate, Place
from serve_app.domain import Tier
from serve_app.errors import Overloaded
from serve_app.planning.config import Bounds, Engines, Traffic
from serve_app.planning.lengths import Floats
from serve_app.planning.pool import Account, Pool, later
from serve_app.planning.replica import Job
from serve_app.planning.traffic import ANY, TO_LARGE, Asks
from serve_app.routing import capacity
from serve_app.settings import CapacitySettings

REPORT_S = 1.0  # the queues reach the ingress this often
AFTER_S = 1800.0  # how long those that came last may still take


@dataclass(frozen=True, slots=True)
class Way:
    """A way to route. `threshold` holds the scores; at 0 everything is large."""

    name: str
    routed: bool = True
    capacity: bool = False
    early_exit: bool = False


WAYS = (
    Way("all large", routed=False),
    Way("threshold"),
    Way("threshold + early exit", early_exit=True),
    Way("capacity-aware", capacity=True),
    Way("capacity-aware + early exit", capacity=True, early_exit=True),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a window is run in; `initial` is how many replicas stand when it begins."""

    engines: Engines
    traffic: Traffic
    bounds: Mapping[Tier, Bounds]
    initial: Mapping[Tier, int]
    threshold: float
    capacity: CapacitySettings = field(default_factory=lambda: CapacitySettings(enabled=True))


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of the requests of a window's measured part. Times are seconds; arrays are of the answered requests."""

    seconds: float
    ttft: Floats
    total: Floats
    large: Floats  # 1 where the large tier answered
    chunks: float
    refused: int
    escalated: int
    unfinished: int
    accounts: Mapping[Tier, Account]
    peaks: Mapping[Tier, int]
    scalings: Mapping[Tier, int]

    @property
    def asked(self) -> int:
        return len(self.ttft) + self.refused + self.unfinished


class Clock:
    """The simulation's time, for what takes a clock."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env

    def now(self) -> float:
        return float(self._env.now)

    def monotonic(self) -> float:
        return float(self._env.now)


class Tally:
    """Owns what is counted of the requests that came from `begins` to `ends`, in seconds."""

    def __init__(self, begins: float, ends: float) -> None:
        self._begins, self._ends = begins, ends
        self._ttft, self._total, self._large = list[float](), list[float](), list[float]()
        self._chunks = 0.0
        self.refused = self.escalated = self.open = 0

    def counts(self, came: float) -> bool:
        return self._begins <= came < self._ends

    def answered(self, *, ttft: float, total: float, large: bool, chunks: float) -> None:
        self.open -= 1
        self._ttft.append(ttft)
        self._total.append(total)
        self._large.append(float(large))
        self._chunks += chunks

    def seen(self, accounts: Mapping[Tier, Account], peaks: Mapping[Tier, int], scalings: Mapping[Tier, int]) -> Seen:
        ttft, total, large = (np.asarray(column, dtype=np.float64) for column in (self._ttft, self._total, self._large))
        counted = (self._chunks, self.refused, self.escalated, self.open)
        return Seen(self._ends - self._begins, ttft, total, large, *counted, accounts, peaks, scalings)


class Window:
    """Owns one run: the clock, the tiers, and where each request stands. `warm_s` seconds are simulated before anything counts."""

    def __init__(self, way: Way, setting: Setting, asks: Asks, *, warm_s: float, seconds: float, seed: int) -> None:
        self._way, self._setting, self._env = way, setting, simpy.Environment()
        self._warm_s, self._end_s = warm_s, warm_s + seconds
        self._columns = [column.tolist() for column in (asks.prompt, asks.small, asks.large, asks.score, asks.doubt, asks.fixed)]
        self._at: list[float] = asks.at.tolist()
        self._tally = Tally(warm_s, self._end_s)
        self._pools = self._made(random.Random(seed))
        clock, wait_s = Clock(self._env), setting.engines.service.max_wait_s
        self._gates = {tier: Gate(2**31, wait_s, clock, pool.capacity) for tier, pool in self._pools.items()}
        self._places: dict[int, Place] = {}  # by request, while it is under way
        self._shift = capacity.ShiftState()
        self._before: dict[Tier, Account] = {}

    def _made(self, rng: random.Random) -> dict[Tier, Pool]:
        given, ends = self._setting, {Tier.SMALL: self._small_done, Tier.LARGE: self._large_done}
        tiers = tuple(Tier) if self._way.routed else (Tier.LARGE,)
        return {
            tier: Pool(self._env, given.engines[tier], given.bounds[tier], initial=given.initial[tier], finished=ends[tier], rng=rng)
            for tier in tiers
        }

    def run(self) -> Seen:
        if self._at:
            later(self._env, self._at[0], lambda: self._arrive(0))
        if self._way.capacity:
            self._report()
        later(self._env, self._warm_s, self._begin)
        self._env.run(until=self._end_s)
        accounts = {tier: pool.account().minus(self._before.get(tier, Account())) for tier, pool in self._pools.items()}
        peaks = {tier: pool.peak for tier, pool in self._pools.items()}
        scalings = {tier: pool.scalings for tier, pool in self._pools.items()}
        while self._tally.open and self._env.peek() <= self._end_s + AFTER_S:
            self._env.step()
        return self._tally.seen(accounts, peaks, scalings)

    def _begin(self) -> None:
        """From here on it counts."""
        self._before = {tier: pool.account() for tier, pool in self._pools.items()}
        for pool in self._pools.values():
            pool.reset_peak()

    def _report(self) -> None:
        loads = {tier: pool.load() for tier, pool in self._pools.items()}
        self._shift = capacity.step(self._setting.capacity, self._shift, loads, self._env.now)
        later(self._env, REPORT_S, self._report)

    def _arrive(self, key: int) -> None:
        if key + 1 < len(self._at):
            later(self._env, self._at[key + 1] - self._env.now, lambda: self._arrive(key + 1))
        self._enter(key, self._tier(key), self._setting.engines.service.route_s if self._way.routed else 0.0)

    def _tier(self, key: int) -> Tier:
        _, _, _, score, _, fixed = self._columns
        if not self._way.routed:
            return Tier.LARGE
        if fixed[key] != ANY:
            return Tier.LARGE if fixed[key] == TO_LARGE else Tier.SMALL
        return Tier.LARGE if score[key] >= self._setting.threshold + self._shift.shift else Tier.SMALL

    def _counts(self, key: int) -> bool:
        return self._tally.counts(self._at[key])

    def _enter(self, key: int, tier: Tier, outside_s: float) -> None:
        try:
            place = self._gates[tier].enter()
        except Overloaded:
            self._tally.refused += self._counts(key)
            return
        self._tally.open += self._counts(key)
        self._places[key] = place
        self._submit(key, tier, outside_s + self._outside_s(tier))

    def _submit(self, key: int, tier: Tier, outside_s: float) -> None:
        prompt, small, large, _, doubt, _ = self._columns
        output = large[key] if tier is Tier.LARGE else small[key]
        if tier is Tier.SMALL and self._doubted(doubt[key]):
            output = min(output, self._setting.traffic.watched_tokens)
        job = Job(key, self._env.now, int(prompt[key]), int(output))
        later(self._env, outside_s, lambda: self._pools[tier].submit(job))

    def _outside_s(self, tier: Tier) -> float:
        speeds, pool = self._setting.engines[tier], self._pools[tier]
        if speeds.request_per_sequence_s == 0:
            return speeds.request_s
        return speeds.outside_s(pool.load().running // max(pool.replicas, 1))

    def _doubted(self, doubt: float) -> bool:
        return self._way.early_exit and doubt < self._setting.traffic.escalated_share

    def _small_done(self, job: Job) -> None:
        if not self._doubted(self._columns[4][job.key]):
            self._answered(job, large=False)
            return
        self._places.pop(job.key).leave(finished=False)
        self._tally.open -= self._counts(job.key)
        self._tally.escalated += self._counts(job.key)
        self._enter(job.key, Tier.LARGE, 0.0)

    def _large_done(self, job: Job) -> None:
        self._answered(job, large=True)

    def _answered(self, job: Job, *, large: bool) -> None:
        self._places.pop(job.key).leave()
        if not self._counts(job.key) or job.first is None or job.done is None:
            return
        came, decode = self._at[job.key], job.done - job.first
        watched = min(self._setting.traffic.watched_tokens - 1, job.output - 1) / max(job.output - 1, 1)
        held_back = decode * watched if self._way.early_exit and not large else 0.0
        chunks = min(job.output, 1 + decode / self._setting.engines.service.coalesce_s)
        self._tally.answered(ttft=job.first + held_back - came, total=job.done - came, large=large, chunks=chunks)
