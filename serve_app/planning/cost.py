"""Dollars a month of a simulated fleet, item by item, and what of it was paid for nothing. Pure arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain import Tier
from serve_app.planning.config import Engines, Prices
from serve_app.planning.plan import Result


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the bill: instances on average over the month, dollars a month, and how many of them were not used."""

    name: str
    instance: str
    count: float
    usd: float
    idle_usd: float


@dataclass(frozen=True, slots=True)
class Bill:
    items: tuple[Item, ...]

    @property
    def usd(self) -> float:
        return sum(item.usd for item in self.items)

    @property
    def idle_usd(self) -> float:
        return sum(item.idle_usd for item in self.items)


@dataclass(frozen=True, slots=True)
class Ground:
    """What every item is priced from. `rate` is requests a second of the whole fleet, over the day."""

    engines: Engines
    prices: Prices
    rate: float
    cells: int


def bill(result: Result, ground: Ground) -> Bill:
    """Every cell has a head and, where it routes, a router."""
    gpus = [_tier(result, tier, ground) for tier in Tier if tier.value in result.mean]
    routed = len(gpus) > 1
    gpus += [_router(ground)] if routed else []
    return Bill((*gpus, *_cpu(cores(result, ground, routed=routed), gpus, ground)))


def cores(result: Result, ground: Ground, *, routed: bool) -> float:
    """Cores that proxy, ingress and embedder keep busy on average."""
    service = ground.engines.service
    each = service.request_cpu_s + result.chunks * service.chunk_cpu_s + (service.embed_cpu_s if routed else 0.0)
    return ground.rate * each


def _item(name: str, instance: str, count: float, use: float, prices: Prices) -> Item:
    usd = count * prices.of(instance).usd_per_hour * prices.hours_per_month
    return Item(name, instance, count, usd, usd * (1 - min(use, 1.0)))


def _tier(result: Result, tier: Tier, ground: Ground) -> Item:
    name, instance = tier.value, ground.engines[tier].instance
    return _item(f"{name} tier", instance, result.mean[name], result.use[name], ground.prices)


def _router(ground: Ground) -> Item:
    """As many as the mean rate needs at 70 % of what one can; every request is rated."""
    service, each = ground.engines.service, ground.rate / ground.cells
    count = ground.cells * max(math.ceil(each / (0.7 * service.router_rate)), 1)
    return _item("router", service.router, count, ground.rate / (count * service.router_rate), ground.prices)


def _cpu(busy: float, gpus: Sequence[Item], ground: Ground) -> tuple[Item, Item]:
    """The heads, and nodes without a GPU for the cores that the GPU nodes have no room for."""
    service, prices = ground.engines.service, ground.prices
    spare = sum(item.count * max(prices.of(item.instance).cpus - service.cpus_used.get(item.instance, 0.0), 0.0) for item in gpus)
    short = max(busy / service.cpu_target - spare, 0.0)
    each = prices.of(service.head).cpus
    count = float(math.ceil(short / each))
    use = short * service.cpu_target / (count * each) if count else 1.0
    return _item("head", service.head, ground.cells, 1.0, prices), _item("ingress", service.head, count, use, prices)
