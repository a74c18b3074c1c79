"""The threshold's shift: what it asks for, how it follows, and a simulation of two tiers under a step load."""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Tier, TierLoad
from serve_app.routing.capacity import LONGEST_STEP_S, ShiftState, step, target
from serve_app.settings import CapacitySettings

SETTINGS = CapacitySettings(enabled=True, raise_most=0.15, lower_most=0.05, busy=0.8, idle=0.2, full=2.0, smoothing_s=5.0)
DEFAULTS = CapacitySettings(enabled=True)
OFF = CapacitySettings(enabled=False)
Loads = dict[Tier, TierLoad | None]


def load(value: float) -> TierLoad:
    """Of one tier with 1,000 sequences."""
    held = round(value * 1000)
    return TierLoad(replicas=1, waiting=max(0, held - 1000), running=min(held, 1000), capacity=1000, as_of=0.0)


def loads(large: float | None, small: float | None = 0.5) -> Loads:
    return {Tier.LARGE: None if large is None else load(large), Tier.SMALL: None if small is None else load(small)}


@pytest.mark.parametrize(
    ("large", "shift"),
    [(0.0, -0.05), (0.1, -0.025), (0.2, 0.0), (0.5, 0.0), (0.8, 0.0), (1.4, 0.075), (2.0, 0.15), (9.0, 0.15)],
)
def test_the_target_follows_the_large_tiers_load(large: float, shift: float) -> None:
    assert target(SETTINGS, loads(large)) == pytest.approx(shift)


@pytest.mark.parametrize(
    ("large", "small", "shift"), [(2.0, 0.8, 0.15), (2.0, 1.4, 0.075), (2.0, 2.0, 0.0), (9.0, 3.0, 0.0), (1.4, 9.0, 0.0), (0.0, 9.0, -0.05)]
)
def test_a_small_tier_that_is_as_busy_is_not_given_more(large: float, small: float, shift: float) -> None:
    assert target(SETTINGS, loads(large, small)) == pytest.approx(shift)


def test_nothing_moves_when_it_is_off_or_the_large_load_is_unknown() -> None:
    assert target(SETTINGS.model_copy(update={"enabled": False}), loads(2.0)) == 0.0
    assert target(SETTINGS, loads(None)) == 0.0
    assert target(SETTINGS, {}) == 0.0
    nobody = TierLoad(replicas=0, waiting=0, running=0, capacity=0, as_of=0.0)
    assert target(SETTINGS, {Tier.LARGE: nobody, Tier.SMALL: load(0.5)}) == 0.0


def test_a_small_tier_that_says_nothing_is_not_given_more() -> None:
    assert target(SETTINGS, loads(2.0, None)) == 0.0
    assert target(SETTINGS, loads(0.0, None)) == pytest.approx(-0.05)


def test_settings_at_their_ends_divide_by_nothing() -> None:
    ends = SETTINGS.model_copy(update={"idle": 0.0, "busy": 2.0, "full": 2.0})
    assert [target(ends, loads(value)) for value in (0.0, 2.0, 3.0)] == [0.0, 0.0, 0.15]


@given(st.floats(0.0, 4.0), st.floats(0.0, 4.0), st.floats(0.0, 4.0))
def test_the_target_is_continuous_and_never_falls_with_the_load(large: float, other: float, small: float) -> None:
    low, high = sorted((large, other))
    before, after = target(SETTINGS, loads(low, small)), target(SETTINGS, loads(high, small))
    steepest = max(SETTINGS.raise_most / (SETTINGS.full - SETTINGS.busy), SETTINGS.lower_most / SETTINGS.idle)
    assert -1e-12 <= after - before <= steepest * (high - low + 0.001) + 1e-12


def follow(state: ShiftState, seen: Loads, *times: float) -> ShiftState:
    for now in times:
        state = step(SETTINGS, state, seen, now)
    return state


def test_the_shift_follows_the_target_with_its_time_constant() -> None:
    state = follow(ShiftState(), loads(2.0), *(float(now) for now in range(6)))
    assert state == ShiftState(pytest.approx(0.15 * (1 - math.exp(-1))), 5.0)


def test_the_first_look_moves_nothing() -> None:
    """Nobody knows for how long the load has been what it is."""
    assert step(SETTINGS, ShiftState(), loads(2.0), 1e9) == ShiftState(0.0, 1e9)


@given(st.lists(st.floats(0.0, 4.0), min_size=1, max_size=30))
def test_it_does_not_matter_how_often_it_is_called(moments: list[float]) -> None:
    between = sorted(moments)
    start = ShiftState(0.02, 0.0)
    assert follow(start, loads(1.7), *between, 4.0).shift == pytest.approx(follow(start, loads(1.7), 4.0).shift)


def test_it_fades_when_the_loads_are_unknown() -> None:
    shifts = [follow(ShiftState(0.15, 0.0), loads(None), *(float(now) for now in range(1, n))).shift for n in (1, 6, 30, 120)]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[1] == pytest.approx(0.15 * math.exp(-1))
    assert shifts[-1] < 1e-9


def test_time_that_nobody_looked_at_counts_as_unknown() -> None:
    """An hour without a step, or a clock that jumped: not an hour of the load that is reported now."""
    seen = 0.15 * (1 - math.exp(-LONGEST_STEP_S / SETTINGS.smoothing_s))
    assert step(SETTINGS, ShiftState(0.0, 0.0), loads(2.0), 3600.0).shift == pytest.approx(seen)
    assert step(SETTINGS, ShiftState(0.15, 0.0), loads(0.5), 3600.0).shift == pytest.approx(0.0, abs=1e-12)


def test_a_clock_that_goes_back_moves_nothing_and_is_followed() -> None:
    state = step(SETTINGS, ShiftState(0.07, 1000.0), loads(2.0), 10.0)
    assert state == ShiftState(0.07, 10.0)
    assert step(SETTINGS, state, loads(2.0), 11.0).shift > 0.07


@given(
    st.builds(
        CapacitySettings,
        enabled=st.booleans(),
        raise_most=st.floats(0, 1),
        lower_most=st.floats(0, 1),
        idle=st.floats(0, 0.5),
        busy=st.floats(0.51, 2),
        full=st.floats(2.01, 4),
        smoothing_s=st.floats(1e-3, 1e3),
    ),
    st.lists(
        st.tuples(
            st.floats(-1e9, 1e9),
            st.fixed_dictionaries({tier: st.none() | st.builds(TierLoad, *[st.integers(0, 5000)] * 4, st.just(0.0)) for tier in Tier}),
        ),
        max_size=30,
    ),
)
def test_the_shift_never_leaves_its_bounds(settings: CapacitySettings, seen: list[tuple[float, Loads]]) -> None:
    state = ShiftState()
    for now, current in seen:
        state = step(settings, state, current, now)
        assert -settings.lower_most <= state.shift <= settings.raise_most


def test_narrower_bounds_hold_at_once() -> None:
    """The settings may change while it runs."""
    narrow = SETTINGS.model_copy(update={"raise_most": 0.02, "lower_most": 0.01})
    assert step(narrow, ShiftState(0.15, 0.0), loads(2.0), 0.1).shift == 0.02
    assert step(narrow, ShiftState(-0.05, 0.0), loads(0.0), 0.1).shift == -0.01


def uniform(score: float) -> float:
    """The share of the requests at or above `score`."""
    return min(max(1.0 - score, 0.0), 1.0)


def beta(score: float) -> float:
    """The same for Beta(2, 2), which has most of its scores in the middle."""
    x = min(max(score, 0.0), 1.0)
    return 1.0 - x * x * (3.0 - 2.0 * x)


@dataclass
class TwoTiers:
    """A fluid simulation of both tiers: `offered` is the large tier's load without any shift, by its capacity.

    Each tier finishes what it holds with the time constant `service_s`; reports are a second old. With `chance` every count of
    arrivals and answers is drawn anew.
    """

    share: Callable[[float], float]
    service_s: float = 5.0
    capacity: int = 64
    settings: CapacitySettings = DEFAULTS
    chance: random.Random | None = None
    tick_s: float = 0.25
    threshold: float = 0.65
    held: dict[Tier, float] = field(default_factory=lambda: dict.fromkeys(Tier, 0.0))
    shifts: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now, self.state = 0.0, ShiftState()
        self.reports: deque[Loads] = deque(maxlen=2)
        self.capacities = {Tier.LARGE: self.capacity, Tier.SMALL: 8 * self.capacity}

    def run(self, offered: float, seconds: float) -> "TwoTiers":
        """Returns itself, with the shifts and loads of these seconds only, one a second."""
        self.shifts, self.large = [], []
        for tick in range(round(seconds / self.tick_s)):
            if tick % round(1 / self.tick_s) == 0:
                self.look()
            self.move(offered * self.capacity / self.service_s / self.share(self.threshold))
            self.now += self.tick_s
        return self

    def look(self) -> None:
        self.reports.append({tier: self.report(tier) for tier in Tier})
        self.state = step(self.settings, self.state, self.reports[0], self.now)
        self.shifts.append(self.state.shift)
        self.large.append(self.held[Tier.LARGE] / self.capacity)

    def report(self, tier: Tier) -> TierLoad:
        held, capacity = round(self.held[tier]), self.capacities[tier]
        return TierLoad(1, max(0, held - capacity), min(held, capacity), capacity, self.now)

    def move(self, rate: float) -> None:
        share = self.share(self.threshold + self.state.shift)
        for tier, part in ((Tier.LARGE, share), (Tier.SMALL, 1.0 - share)):
            done = min(self.held[tier], self.capacities[tier]) / self.service_s * self.tick_s
            self.held[tier] = max(0.0, self.held[tier] + self.count(rate * part * self.tick_s) - self.count(done))

    def count(self, mean: float) -> float:
        """Poisson, by its normal approximation."""
        return mean if self.chance is None else max(0.0, self.chance.gauss(mean, math.sqrt(mean)))


def swing(values: list[float]) -> float:
    return max(values) - min(values)


def turns(values: list[float], least: float) -> int:
    """How often the direction changes, by moves of at least `least`."""
    count, extreme, direction = 0, values[0], 0
    for value in values:
        if abs(value - extreme) >= least and (sign := 1 if value > extreme else -1) != direction:
            count, direction, extreme = count + 1, sign, value
        elif (value - extreme) * direction > 0:
            extreme = value
    return max(0, count - 1)


@pytest.mark.parametrize("service_s", [2.0, 5.0, 20.0])
@pytest.mark.parametrize("share", [uniform, beta])
@pytest.mark.parametrize("offered", [1.5, 2.0])
def test_a_step_load_moves_the_threshold_without_swinging(share: Callable[[float], float], offered: float, service_s: float) -> None:
    """From half of the large tier's capacity to more than all of it for five minutes, and back."""
    tiers, without = TwoTiers(share, service_s), TwoTiers(share, service_s, settings=OFF)
    assert swing(tiers.run(0.5, 120.0).shifts[60:]) < 1e-3

    tiers.run(offered, 300.0)
    ungoverned = without.run(0.5, 120.0).shifts + without.run(offered, 300.0).shifts
    assert ungoverned == [0.0] * 420
    waiting, waiting_without = tiers.large[-1] - 1.0, without.large[-1] - 1.0
    assert waiting < 0.22 * waiting_without
    settled = tiers.shifts[200:]
    assert swing(settled) < 0.02
    assert turns(settled, 0.005) == 0
    assert min(settled) > 0.05

    back = tiers.run(0.5, 200.0).shifts
    assert turns(back, 0.005) == 0  # down and nothing else
    assert -1e-3 < min(back) <= back[-1] < 1e-3


def test_with_room_in_its_bounds_the_large_queue_settles() -> None:
    """Twice the load in Beta(2, 2): inside the bounds there is a threshold that halves it, and the queue stops growing."""
    tiers = TwoTiers(beta)
    tiers.run(0.5, 120.0)
    tiers.run(2.0, 300.0)
    assert max(tiers.large) < 4.0
    assert max(tiers.large[200:]) < DEFAULTS.full
    assert swing(tiers.large[200:]) < 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_chance_in_the_arrivals_is_not_followed_far(seed: int) -> None:
    tiers = TwoTiers(beta, chance=random.Random(seed))
    tiers.run(0.5, 120.0)
    tiers.run(2.0, 300.0)
    assert max(tiers.large[200:]) < DEFAULTS.full + 1.0
    assert swing(tiers.shifts[200:]) < 0.08
    assert turns(tiers.shifts[200:], 0.05) <= 2
    assert swing(tiers.run(0.5, 300.0).shifts[150:]) < 0.01


@pytest.mark.parametrize(
    ("service_s", "changes"),
    [(0.5, {}), (2.0, {"smoothing_s": 30.0}), (5.0, {"raise_most": 0.5, "full": 1.0, "smoothing_s": 5.0})],
    ids=["answers shorter than the reports are old", "too long a smoothing", "too steep"],
)
def test_what_the_module_says_of_swinging_is_so(service_s: float, changes: dict[str, float]) -> None:
    """The same measure, where the docstring says that it swings."""
    tiers = TwoTiers(beta, service_s, settings=DEFAULTS.model_copy(update=changes))
    tiers.run(0.5, 120.0)
    assert swing(tiers.run(2.0, 300.0).shifts[200:]) > 0.02


def test_an_idle_large_tier_takes_more() -> None:
    tiers = TwoTiers(uniform)
    taken = tiers.run(0.1, 300.0)
    assert -DEFAULTS.lower_most < taken.shifts[-1] < -0.01
    assert swing(taken.shifts[200:]) < 0.02
    assert 0.1 < taken.large[-1] < DEFAULTS.idle


def test_two_drowning_tiers_leave_the_threshold_where_it_is() -> None:
    tiers = TwoTiers(uniform)
    tiers.capacities[Tier.SMALL] = 16
    tiers.run(2.0, 300.0)
    assert abs(tiers.shifts[-1]) < 1e-3
