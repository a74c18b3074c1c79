"""What a golden run cost in instance-hours: the fleet's hourly prices over the measured seconds, shared by who kept a tier busy.

The items are those of the cost exporter. A second in which requests are with a tier is charged to them in equal parts; a second without
any is the tier's idle time. A routed request is with the router until it was decided, which the endpoint tells. Pure.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve_app.domain import Tier
from serve_app.evaluate.golden_live_answers import Answer, Arm, Run
from serve_app.observe.exporter_nodes import Node, prices, rates, reserves
from serve_app.settings import EngineSettings, NodeShape, Settings

HOUR_S = 3600.0
DEPLOYMENTS = {"small": "SmallTier", "large": "LargeTier", "router_llm": "RouterLLM"}
Key = tuple[str, Arm]  # a prompt's id and the arm it was sent in: one request
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fleet:
    """`usd` by item sums to what the fleet cost while the run took; `busy_s` is how long each item worked.

    `held` is what each answered request is charged: its tier, and the router if it was routed.
    """

    usd_per_hour: float
    usd: Mapping[str, float]
    busy_s: Mapping[str, float]
    held: Mapping[Key, float]

    def of(self, arm: Arm) -> float:
        return sum(dollars for (_, whose), dollars in self.held.items() if whose is arm)


def hourly(settings: Settings, replicas: Mapping[str, int]) -> dict[str, float]:
    """Dollars an hour by item: the least machines of `args.fleet` that hold one router and so many replicas of each tier.

    A machine without an engine, such as a cluster's head, is not in it: the settings do not say how many there are.
    """
    engines = {DEPLOYMENTS[name]: (engine, replicas.get(name, 1)) for name, engine in settings.engines.items()}
    known = prices(settings).usd_per_hour
    shared: Counter[str] = Counter()
    nodes: list[Node] = []
    for name, (engine, count) in engines.items():
        if engine.gpus:
            shape = _least(settings.fleet, engine)
            nodes += [_node(shape, known, {name: 1})] * count
        else:
            shared[name] += count
    if shared:
        everything = {**shared, "Embedder": 1, "Ingress": 1, "Ledger": 1}
        nodes.append(_node(min(settings.fleet, key=lambda one: one.usd_per_hour), known, everything))
    return rates(nodes, reserves(settings))


def _least(fleet: Sequence[NodeShape], engine: EngineSettings) -> NodeShape:
    """The cheapest machine with enough GPUs; where none has, the one that costs most, of which there would be several."""
    fits = [shape for shape in fleet if shape.gpus >= engine.gpus]
    return min(fits, key=lambda one: one.usd_per_hour) if fits else max(fleet, key=lambda one: one.usd_per_hour)


def _node(shape: NodeShape, known: Mapping[str, float], deployments: Mapping[str, int]) -> Node:
    return Node(shape.instance, known.get(shape.instance), shape.cpus, shape.gpus, deployments)


def charge(run: Run, hourly_usd: Mapping[str, float]) -> Fleet:
    """Share the run's instance-hours. Requests that failed hold nothing: whom they kept busy is not known."""
    groups = _spans([one for one in run.answers if one.receipt is not None])
    held, usd = defaultdict[Key, float](float), defaultdict[str, float](float)
    busy: dict[str, float] = {}
    for item, spans in groups.items():
        rate, seconds = hourly_usd.get(item, 0.0) / HOUR_S, shares(spans)
        busy[item] = sum(seconds.values())
        for key, share in seconds.items():
            held[key] += share * rate
            usd[_item(item, key)] += share * rate
        usd[f"{item}_idle"] = rate * (run.seconds - busy[item])
    for item in set(hourly_usd) - set(groups):
        usd[item] = hourly_usd[item] * run.seconds / HOUR_S
    return Fleet(sum(hourly_usd.values()), dict(usd), busy, dict(held))


def _spans(answered: Sequence[Answer]) -> dict[str, dict[Key, Span]]:
    """When each request kept which item busy: the router until it was decided, then the tier that answered."""
    groups: dict[str, dict[Key, Span]] = {**{tier.value: {} for tier in Tier}, "router": {}}
    for one in answered:
        decided, key = min(one.started + one.overhead, one.ended), (one.id, one.arm)
        if one.receipt is not None:
            groups[one.receipt.tier.value][key] = (decided, one.ended)
        if one.arm is Arm.ROUTED:
            groups["router"][key] = (one.started, decided)
    return groups


def _item(item: str, key: Key) -> str:
    return f"{item}_baseline" if key[1] is Arm.ALL_LARGE else item


def shares(spans: Mapping[Key, Span]) -> dict[Key, float]:
    """Seconds of each request, a second that several share divided between them: they sum to the time in which any was there."""
    found = dict.fromkeys(spans, 0.0)
    moments = sorted({moment for span in spans.values() for moment in span})
    waiting, active = sorted(spans, key=lambda key: -spans[key][0]), list[Key]()
    for now, then in pairwise(moments):
        while waiting and spans[waiting[-1]][0] <= now:
            active.append(waiting.pop())
        active = [key for key in active if spans[key][1] > now]
        for key in active:
            found[key] += (then - now) / len(active)
    return found
