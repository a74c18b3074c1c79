"""One tier of the simulated fleet: replicas that come cold and leave drained, scaled by the real policy. On SimPy's clock."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import simpy

from serve_app.domain import TierLoad
from serve_app.planning.config import Bounds
from serve_app.planning.replica import Job, Replica
from serve_app.planning.speeds import EngineSpeeds
from serve_app.routing.scaling import History, Sample, decide

LOOK_S = 5.0  # the policy is asked this often


@dataclass(frozen=True, slots=True)
class Account:
    """Seconds of instances, up to one moment. `starting` and `idle` are parts of `instances`; `sequences` is sequence-seconds."""

    instances: float = 0.0
    starting: float = 0.0
    busy: float = 0.0
    sequences: float = 0.0

    def minus(self, other: "Account") -> "Account":
        return Account(
            self.instances - other.instances,
            self.starting - other.starting,
            self.busy - other.busy,
            self.sequences - other.sequences,
        )


class Pool:
    """Owns the replicas of one tier and their account. Requests go to the less busy of two replicas, as Serve sends them."""

    def __init__(
        self,
        env: simpy.Environment,
        speeds: EngineSpeeds,
        bounds: Bounds,
        *,
        initial: int,
        finished: Callable[[Job], None],
        rng: random.Random,
    ) -> None:
        self._env, self._speeds, self._bounds, self._finished, self._rng = env, speeds, bounds, finished, rng
        self._ready: list[Replica] = []
        self._leaving: list[Replica] = []
        self._unplaced: deque[Job] = deque()
        self._starting = self._given_up = 0
        self._gone = Account()
        self._since = env.now
        self._history = History()
        self.peak = self.scalings = 0
        self._ready = [self._replica() for _ in range(self._bounded(initial))]
        self._counted()
        self._look()

    @property
    def instances(self) -> int:
        return len(self._ready) + self._starting + len(self._leaving)

    @property
    def replicas(self) -> int:
        """Those that take requests."""
        return len(self._ready)

    def submit(self, job: Job) -> None:
        if not self._ready:
            self._unplaced.append(job)
            return
        self._ready_of_two().submit(job)

    def load(self) -> TierLoad:
        waiting = sum(replica.waiting for replica in self._ready) + len(self._unplaced)
        running = sum(replica.running for replica in self._ready)
        return TierLoad(len(self._ready), waiting, running, self.capacity(), self._env.now)

    def capacity(self) -> int:
        return len(self._ready) * self._speeds.max_num_seqs

    def account(self) -> Account:
        self._tally()
        total = self._gone
        for replica in (*self._ready, *self._leaving):
            total = _plus_work(total, replica)
        return total

    def reset_peak(self) -> None:
        self.peak, self.scalings = self.instances, 0

    def _ready_of_two(self) -> Replica:
        count = len(self._ready)
        one = self._ready[int(self._rng.random() * count)]
        other = self._ready[int(self._rng.random() * count)]
        return one if one.load <= other.load else other

    def _replica(self) -> Replica:
        return Replica(self._env, self._speeds, self._one_finished)

    def _one_finished(self, job: Job) -> None:
        self._finished(job)
        if self._leaving:
            self._let_go()

    def _bounded(self, replicas: int) -> int:
        return min(max(replicas, self._bounds.min_replicas), self._bounds.max_replicas)

    def _look(self) -> None:
        load = self.load()
        sample = Sample(
            at=self._env.now,
            replicas=load.replicas,
            target=load.replicas + self._starting,
            waiting=load.waiting,
            running=load.running,
            capacity=load.capacity,
        )
        wanted, self._history = decide(self._bounds.scaling, self._history, sample)
        self._scale(self._bounded(wanted) - sample.target)
        later(self._env, LOOK_S, self._look)

    def _scale(self, change: int) -> None:
        if change == 0:
            return
        self._tally()
        self.scalings += 1
        for _ in range(change):
            self._starting += 1
            later(self._env, self._speeds.cold_start_s, self._warm)
        given_up = min(max(-change, 0), self._starting)  # those that nobody has waited for yet go first
        self._starting -= given_up
        self._given_up += given_up
        for _ in range(min(-change - given_up, len(self._ready) - 1)):
            least = min(self._ready, key=lambda replica: replica.load)
            self._ready.remove(least)
            self._leaving.append(least)
        self._let_go()
        self._counted()

    def _warm(self) -> None:
        if self._given_up:
            self._given_up -= 1
            return
        self._tally()
        self._starting -= 1
        self._ready.append(self._replica())
        while self._unplaced:
            self._ready[-1].submit(self._unplaced.popleft())

    def _let_go(self) -> None:
        """A leaving replica is paid for until its last answer."""
        for replica in [one for one in self._leaving if one.load == 0]:
            self._tally()
            self._leaving.remove(replica)
            self._gone = _plus_work(self._gone, replica)

    def _counted(self) -> None:
        self.peak = max(self.peak, self.instances)

    def _tally(self) -> None:
        past = self._env.now - self._since
        self._since = self._env.now
        gone = self._gone
        self._gone = Account(gone.instances + past * self.instances, gone.starting + past * self._starting, gone.busy, gone.sequences)


def _plus_work(account: Account, replica: Replica) -> Account:
    busy, sequences = replica.account()
    return Account(account.instances, account.starting, account.busy + busy, account.sequences + sequences)


def later(env: simpy.Environment, seconds: float, act: Callable[[], None]) -> None:
    event = env.timeout(seconds)
    if event.callbacks is not None:
        event.callbacks.append(lambda _: act())
