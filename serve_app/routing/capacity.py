"""How far the engines' queues move the threshold. Pure: time is an argument.

A drowning large tier raises the threshold, so that borderline requests stay small; an idle one lowers it. The queue adds up what
the threshold lets in, and the shift follows the queue late: a loop that can swing. With `smoothing_s` T, a gain of
k = raise_most / (full - busy), and a queue that grows by g (in units of the load, per second) for each unit of the threshold, it is
damped by 1 / (2 sqrt(T g k)), and its swings fade with a time constant of 2 T: a longer smoothing swings more, not less. What no
smoothing cures is g k times the age of the reports above about 1: then it swings for ever, between the bounds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.domain import Tier, TierLoad
from serve_app.settings import CapacitySettings

LONGEST_STEP_S = 5.0
"""A report that is older counts as unknown; so does the time that nobody looked at."""
NARROWEST = 0.01
"""In units of the load: over less, noise alone would throw the threshold from one bound to the other."""


@dataclass(frozen=True, slots=True)
class ShiftState:
    """`shift` is added to the threshold. `at` is the time of the last step in seconds, None before the first."""

    shift: float = 0.0
    at: float | None = None


def target(settings: CapacitySettings, loads: Mapping[Tier, TierLoad | None]) -> float:
    """The shift that the loads ask for, in [-lower_most, raise_most]; continuous in them.

    It rises only by as much as the large tier is busier than the small one: drowning one to relieve the other helps nobody.
    A small tier that says nothing is not given more either.
    """
    large, small = _load(loads.get(Tier.LARGE)), _load(loads.get(Tier.SMALL))
    if not settings.enabled or large is None:
        return 0.0
    spare = 0.0 if small is None else max(0.0, _busy(settings, large) - _busy(settings, small))
    return settings.raise_most * spare - settings.lower_most * _idle(settings, large)


def step(settings: CapacitySettings, state: ShiftState, loads: Mapping[Tier, TierLoad | None], now: float) -> ShiftState:
    """Follow the target exponentially; how often it is called does not matter.

    What lies further back than `LONGEST_STEP_S` was not observed, and lets the shift fade. A clock that went back moves nothing.
    """
    elapsed = 0.0 if state.at is None else max(0.0, now - state.at)
    seen = min(elapsed, LONGEST_STEP_S)
    faded = state.shift * math.exp((seen - elapsed) / settings.smoothing_s)
    wanted = target(settings, loads)
    shift = wanted + (faded - wanted) * math.exp(-seen / settings.smoothing_s)
    return ShiftState(min(max(shift, -settings.lower_most), settings.raise_most), now)


def _load(load: TierLoad | None) -> float | None:
    """Sequences by capacity; None when unknown, or while there is no replica to have a load."""
    return None if load is None or load.capacity <= 0 else (load.running + load.waiting) / load.capacity


def _busy(settings: CapacitySettings, load: float) -> float:
    """0 up to `busy`, 1 from `full` on."""
    return min(max((load - settings.busy) / max(settings.full - settings.busy, NARROWEST), 0.0), 1.0)


def _idle(settings: CapacitySettings, load: float) -> float:
    """1 without any load, 0 from `idle` on."""
    return max(1.0 - load / max(settings.idle, NARROWEST), 0.0) if settings.idle else 0.0
