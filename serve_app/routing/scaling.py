"""How many replicas a deployment should have, from what its replicas say of their own queues. Pure: history, now -> replicas.

Out, when there was too much to do for `out_after_s` without a break, and by its trend still will be when a replica has loaded. In, one
at a time, when fewer would have been enough for all of `in_after_s`. Nothing follows a change of the replicas within `cooldown_s`, and
while a replica starts no other one does. What is not known holds: a missing report never scales.
"""

import math
from dataclasses import dataclass, replace

from serve_app.settings.scaling import Scaling

ROUNDING = 1e-9  # 0.7 of a capacity of 10 is 7 requests, not one replica more


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a deployment. Queues and capacity are requests, summed over the replicas that run.

    `replicas` run, `target` is how many Serve was told to have; `queued` counts requests that no replica has taken yet, and `served`
    all that the replicas ever took: one that came and went between two looks is in no queue.
    """

    at: float
    replicas: int
    target: int
    waiting: float = 0.0
    running: float = 0.0
    capacity: float = 0.0
    queued: float = 0.0
    served: float = 0.0

    @property
    def load(self) -> float:
        return self.waiting + self.running


@dataclass(frozen=True, slots=True)
class Run:
    """Too much to do in every look since `since`: the straight line that fits the load meanwhile, as its sums."""

    since: float
    looks: int = 0
    time: float = 0.0  # means over the looks, time since `since`
    load: float = 0.0
    spread: float = 0.0  # sum of squares of the time about its mean
    rise: float = 0.0  # the same of time and load

    def seen(self, sample: Sample) -> "Run":
        looks, time = self.looks + 1, sample.at - self.since
        off = time - self.time
        mean_time, mean_load = self.time + off / looks, self.load + (sample.load - self.load) / looks
        spread, rise = self.spread + off * (time - mean_time), self.rise + off * (sample.load - mean_load)
        return Run(self.since, looks, mean_time, mean_load, spread, rise)

    def at(self, when: float) -> float:
        """The load that the line has then; at most twice what was seen, since a spike at its end bends it."""
        slope = self.rise / self.spread if self.spread > 0 else 0.0
        return min(self.load + slope * (when - self.since - self.time), 2 * self.load)


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered from look to look: no more than one number for each replica. Empty after a restart, which holds.

    `enough` says since when one, two, ... replicas would have been enough; None where they are not.
    """

    last: Sample | None = None
    changed: float = -math.inf
    over: Run | None = None
    idle: float | None = None
    enough: tuple[float | None, ...] = ()


def decide(scaling: Scaling, history: History, sample: Sample, *, to_zero: bool = False) -> tuple[int, History]:
    """The replicas to have, and what to remember. `sample.at` is the time, in seconds.

    `to_zero` allows none at all, which `min_replicas: 0` does.
    """
    history = _looked(scaling, history, sample)
    if sample.replicas == 0:
        return (max(1, sample.target) if sample.queued > 0 else sample.target), history
    return sample.target + _change(scaling, history, sample, to_zero=to_zero), history


def _change(scaling: Scaling, history: History, sample: Sample, *, to_zero: bool) -> int:
    """By how much the target changes while replicas run."""
    if sample.target < sample.replicas or sample.at - history.changed < scaling.cooldown_s:
        return 0
    if to_zero and sample.target == 1 and _lasted(history.idle, scaling.idle_s, sample.at):
        return -1
    if sample.target > 1 and _lasted(history.enough[sample.target - 2], scaling.in_after_s, sample.at):
        return -1  # also one that starts: that cannot be placed, and that nobody needs any more
    if sample.target == sample.replicas and history.over is not None and _lasted(history.over.since, scaling.out_after_s, sample.at):
        coming = history.over.at(sample.at + scaling.ahead_s) - sample.load
        return wanted(scaling, replace(sample, waiting=max(0.0, sample.waiting + coming))) - sample.replicas
    return 0


def held(history: History) -> History:
    """What remains when a look showed nothing: that which must last has been broken off."""
    return replace(history, over=None, idle=None, enough=())


def wanted(scaling: Scaling, sample: Sample) -> int:
    """The replicas that this look alone asks for; `sample.replicas` when they are enough."""
    most = sample.replicas
    if scaling.waiting is not None and sample.waiting > scaling.waiting * sample.replicas:
        most = max(most, sample.replicas + 1)
    if scaling.depth is not None and sample.load > scaling.depth * sample.replicas:
        most = max(most, sample.replicas + 1)
    if scaling.utilisation is not None and sample.capacity > 0:
        most = max(most, math.ceil(sample.load * sample.replicas / (scaling.utilisation * sample.capacity) - ROUNDING))
    return most


def enough(scaling: Scaling, sample: Sample, replicas: int) -> bool:
    """Whether so many would do, by every rule that is set: with less to do than what would add one again."""
    capacity = sample.capacity * replicas / sample.replicas
    return (
        (scaling.waiting is None or max(sample.waiting, sample.load - capacity) <= scaling.waiting_in * replicas)
        and (scaling.depth is None or sample.load <= scaling.depth_in * replicas)
        and (scaling.utilisation is None or sample.load <= scaling.utilisation_in * capacity)
    )


def _looked(scaling: Scaling, history: History, sample: Sample) -> History:
    last = history.last
    if last is None or not 0 <= sample.at - last.at <= scaling.stale_s:
        history = replace(held(history), changed=sample.at)  # nobody looked in between, or the clock was set
    elif (last.replicas, last.target) != (sample.replicas, sample.target):
        history = replace(history, changed=sample.at, over=None, idle=None)
    if sample.replicas == 0:
        return replace(held(history), last=sample)
    too_much = wanted(scaling, sample) > sample.replicas
    return History(
        last=sample,
        changed=history.changed,
        over=(history.over or Run(sample.at)).seen(sample) if too_much else None,
        idle=_since(history.idle, sample.at, holds=sample.load + sample.queued == 0 and (last is None or sample.served == last.served)),
        enough=tuple(
            _since(_known(history.enough, fewer), sample.at, holds=enough(scaling, sample, fewer)) for fewer in range(1, sample.target)
        ),
    )


def _known(enough_since: tuple[float | None, ...], replicas: int) -> float | None:
    """What was enough for fewer was enough for more."""
    return enough_since[min(replicas, len(enough_since)) - 1] if enough_since else None


def _since(since: float | None, now: float, *, holds: bool) -> float | None:
    """Since when something holds without a break."""
    if not holds:
        return None
    return now if since is None else since


def _lasted(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since >= seconds
