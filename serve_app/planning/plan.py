"""From a month's traffic to instances, latencies and dollars: a day is simulated, whole or in windows, and stands for the month.

A fleet that is too large to simulate request by request is taken as equal cells with a scaler each: one cell is simulated and counts
as often as there are cells. That is also how such a fleet should be built: one scaler adds one replica at a time.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve_app.domain import Tier
from serve_app.planning.config import Bounds, Engines, Prices, Traffic
from serve_app.planning.lengths import Floats
from serve_app.planning.pool import Account
from serve_app.planning.simulation import WAYS, Seen, Setting, Way, Window
from serve_app.planning.speeds import EngineSpeeds
from serve_app.planning.trace import Trace, drawn
from serve_app.planning.traffic import HOUR_S, Asks, Lengths, draw, factor, hours, mean_rate, shape, times
from serve_app.settings.scaling import Scaling

Progress = Callable[[list[Any], str], Iterator[Any]]
FULL_BATCH, STEADY_USE = 0.9, 0.7
SCALING = {  # as deployments.yaml has them
    Tier.SMALL: Scaling(utilisation=0.7, utilisation_in=0.6, ahead_s=90.0, out_after_s=30.0, in_after_s=600.0, cooldown_s=30.0),
    Tier.LARGE: Scaling(waiting=20.0, waiting_in=10.0, ahead_s=90.0, out_after_s=30.0, in_after_s=300.0, cooldown_s=30.0, idle_s=900.0),
}


@dataclass(frozen=True, slots=True)
class Grid:
    """What of a day is simulated: `starts` are hours of the day, `seconds` of each count after `warm_s` that do not."""

    starts: tuple[float, ...]
    seconds: float
    warm_s: float
    whole: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is simulated for one way to route. Up to `whole_day` requests the day is whole, else `windowed` in windows; `cell` is the
    most requests a month of one cell."""

    whole_day: int = 400_000
    windowed: int = 150_000
    cell: float = 50e6
    windows: int = 6
    warm_s: float = 1500.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one way to route comes to, for the whole fleet and a month where nothing else is said.

    `mean` and `peak` are instances, `starting` the share of their paid time before they are ready. `use` is the answers over those
    that full batches would have given in the paid time, `busy` the share of it with any running sequence, `fill` the running
    sequences over those that would fit. Times are seconds.
    """

    way: str
    large_share: float
    answered: int
    refused: int
    unfinished: int
    escalated: int
    ttft_p50: float
    ttft_p99: float
    total_p50: float
    total_p99: float
    mean: Mapping[str, float]
    peak: Mapping[str, float]
    use: Mapping[str, float]
    busy: Mapping[str, float]
    fill: Mapping[str, float]
    starting: Mapping[str, float]
    chunks: float
    scalings: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Simulated:
    results: tuple[Result, ...]
    cells: int
    grid: Grid
    asked: int  # requests that were simulated and counted, for each way
    rate: float  # requests a second of the whole fleet, over the day


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that a plan depends on."""

    traffic: Traffic
    engines: Engines
    prices: Prices
    bounds: Mapping[Tier, Bounds]
    budget: Budget = Budget()
    ways: Sequence[Way] = WAYS
    seed: int = 0
    trace: Trace | None = None  # where its requests are drawn from, in place of the fitted distributions


def default_bounds() -> dict[Tier, Bounds]:
    return {tier: Bounds(scaling=scaling) for tier, scaling in SCALING.items()}


def grid(rate: float, budget: Budget) -> Grid:
    """The whole day where it fits into the budget, else windows spread evenly over it. `rate` is one cell's."""
    day = 24 * HOUR_S
    if rate * day <= budget.whole_day:
        return Grid((0.0,), day, budget.warm_s, whole=True)
    seconds = max(budget.windowed / (rate * budget.windows), 300.0)
    starts = tuple(hour - seconds / 2 / HOUR_S for hour in hours(budget.windows))
    return Grid(starts, seconds, min(budget.warm_s, seconds), whole=False)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell is simulated with. `rate` is its requests a second, over the day."""

    task: Task
    lengths: Lengths
    days: Grid
    rate: float

    def window(self, way: Way, number: int) -> Seen:
        """One part of the day; the same requests for every way."""
        task, days, begins_h = self.task, self.days, self.days.starts[number] - self.days.warm_s / HOUR_S
        setting = Setting(
            engines=task.engines,
            traffic=task.traffic,
            bounds=task.bounds,
            initial=initial(task.traffic, task.engines, self.rate * factor(shape(task.traffic), begins_h), way),
            threshold=1 - task.traffic.large_share if task.trace is None else task.trace.threshold,
        )
        asks = self._asks(begins_h, np.random.default_rng((task.seed, number)))
        return Window(way, setting, asks, warm_s=days.warm_s, seconds=days.seconds, seed=task.seed + number).run()

    def _asks(self, begins_h: float, rng: np.random.Generator) -> Asks:
        traffic, seconds = self.task.traffic, self.days.warm_s + self.days.seconds
        at = times(traffic, self.rate, begins_h, seconds, rng)
        return draw(self.lengths, at, rng) if self.task.trace is None else drawn(self.task.trace, at, rng)


def simulate(task: Task, progress: Progress) -> Simulated:
    """Raises `ValueError` for lengths that contradict each other."""
    cells = max(math.ceil(task.traffic.requests_per_month / task.budget.cell), 1)
    rate = mean_rate(task.traffic, task.prices.hours_per_month) / cells
    cell = Cell(task, Lengths.of(task.traffic), grid(rate, task.budget), rate)
    seen: dict[str, list[Seen]] = {way.name: [] for way in task.ways}
    for way, number in progress([(way, number) for way in task.ways for number in range(len(cell.days.starts))], "simulating"):
        seen[way.name].append(cell.window(way, number))
    results = tuple(result(name, parts, task, cells) for name, parts in seen.items())
    return Simulated(results, cells, cell.days, sum(one.asked for one in seen[task.ways[0].name]), rate * cells)


def initial(traffic: Traffic, engines: Engines, rate: float, way: Way) -> dict[Tier, int]:
    """The replicas that a fleet has after a while at `rate` requests a second: small ones used to 70 %, large ones nearly full."""
    large = traffic.large_share if way.routed else 1.0
    if way.early_exit:
        large += (1 - large) * traffic.escalated_share
    return {
        Tier.LARGE: replicas(engines.large, rate * large, traffic, FULL_BATCH),
        Tier.SMALL: replicas(engines.small, rate * (1 - large), traffic, STEADY_USE),
    }


def replicas(speeds: EngineSpeeds, rate: float, traffic: Traffic, use: float) -> int:
    """The fewest replicas of which none runs more than this share of the sequences that it can."""
    places = use * speeds.max_num_seqs
    full = speeds.throughput(traffic.prompt_tokens, traffic.output_tokens)
    count = max(math.ceil(rate / full), 1)
    while speeds.running(rate / count, traffic.prompt_tokens, traffic.output_tokens) > places:
        count += 1
    return count


def result(name: str, parts: Sequence[Seen], task: Task, cells: int) -> Result:
    """Windows of equal length put together: each stands for an equal part of the day."""
    ttft, total, large = (np.concatenate([getattr(one, column) for one in parts]) for column in ("ttft", "total", "large"))
    tiers = list(parts[0].accounts)
    accounts = {tier: _sum([one.accounts[tier] for one in parts]) for tier in tiers}
    seconds = sum(one.seconds for one in parts)
    paid = {tier: max(account.instances, 1e-9) for tier, account in accounts.items()}
    return Result(
        way=name,
        large_share=float(large.mean()) if len(large) else math.nan,
        answered=len(ttft),
        refused=sum(one.refused for one in parts),
        unfinished=sum(one.unfinished for one in parts),
        escalated=sum(one.escalated for one in parts),
        ttft_p50=quantile(ttft, 0.5),
        ttft_p99=quantile(ttft, 0.99),
        total_p50=quantile(total, 0.5),
        total_p99=quantile(total, 0.99),
        mean={tier.value: cells * accounts[tier].instances / seconds for tier in tiers},
        peak={tier.value: cells * max(one.peaks[tier] for one in parts) for tier in tiers},
        use={tier.value: _use(task, tier, int((large == (tier is Tier.LARGE)).sum()), paid[tier]) for tier in tiers},
        busy={tier.value: accounts[tier].busy / paid[tier] for tier in tiers},
        fill={tier.value: accounts[tier].sequences / paid[tier] / task.engines[tier].max_num_seqs for tier in tiers},
        starting={tier.value: accounts[tier].starting / paid[tier] for tier in tiers},
        chunks=sum(one.chunks for one in parts) / max(len(ttft), 1),
        scalings={tier.value: sum(one.scalings[tier] for one in parts) for tier in tiers},
    )


def _use(task: Task, tier: Tier, answers: int, paid_s: float) -> float:
    full = task.engines[tier].throughput(task.traffic.prompt_tokens, task.traffic.output_tokens)
    return min(answers / full / paid_s, 1.0)


def _sum(accounts: Sequence[Account]) -> Account:
    return Account(
        sum(one.instances for one in accounts),
        sum(one.starting for one in accounts),
        sum(one.busy for one in accounts),
        sum(one.sequences for one in accounts),
    )


def quantile(values: Floats, level: float) -> float:
    return float(np.quantile(values, level)) if len(values) else math.nan
