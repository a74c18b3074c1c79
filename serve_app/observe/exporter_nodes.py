"""The fleet as the metrics of its nodes show it: which machines, which deployments on them, dollars an hour. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import yaml

from serve_app.observe.exporter_scrape import Sample
from serve_app.settings import Settings

INSTANCE = "instance:"  # the custom resource by which a node says of what type it is
ENGINES = {"SmallTier": "small", "LargeTier": "large", "RouterLLM": "router", "Embedder": "router"}
GATEWAY, UNUSED = "gateway", "unused"


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars an hour by instance type; `date` and `region` are those of the packaged table."""

    date: str
    region: str
    usd_per_hour: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Node:
    """One machine. `instance` is None when nothing says what it is, `usd_per_hour` when no price is known."""

    instance: str | None
    usd_per_hour: float | None
    cpus: float
    gpus: float
    deployments: Mapping[str, int]  # replicas on it


@dataclass(frozen=True, slots=True)
class Reserve:
    """What one replica of a deployment reserves."""

    cpus: float
    gpus: float


def prices(settings: Settings) -> Prices:
    """The packaged table, then what `fleet` says, then what the exporter's own settings say."""
    table = yaml.safe_load(files("serve_app.observe.prices").joinpath("g6e.yaml").read_text(encoding="utf-8"))
    own = {shape.instance: shape.usd_per_hour for shape in settings.fleet}
    return Prices(str(table["date"]), table["region"], {**table["usd_per_hour"], **own, **settings.exporter.instances})


def reserves(settings: Settings) -> dict[str, Reserve]:
    engines = {"SmallTier": settings.small, "LargeTier": settings.large, "RouterLLM": settings.router_llm}
    others = {"Embedder": settings.embedder.num_cpus, "Ingress": settings.ingress.num_cpus, "Ledger": 0.1}
    of_engines = {name: Reserve(engine.num_cpus, engine.gpus) for name, engine in engines.items()}
    return {**of_engines, **{name: Reserve(cpus, 0) for name, cpus in others.items()}}


def node(samples: Iterable[Sample], settings: Settings, known: Prices) -> Node | None:
    """The machine behind one metrics address; None when it is not a node's (Ray lists its dashboard's too)."""
    resources: Counter[str] = Counter()
    deployments: Counter[str] = Counter()
    cores = 0.0
    for sample in samples:
        labels = dict(sample.labels)
        if sample.name == "ray_resources":
            resources[labels.get("Name", "")] += sample.value  # type: ignore[assignment]  # a Counter holds floats as well
        elif sample.name == "ray_node_cpu_count":
            cores = max(cores, sample.value)
        elif sample.name == "ray_serve_replica_processing_queries":
            deployments[labels.get("deployment", "")] += 1
    if not resources:
        return None
    gpus, cpus = float(resources["GPU"]), cores or float(resources["CPU"])
    named = sorted(name.removeprefix(INSTANCE) for name in resources if name.startswith(INSTANCE))
    instance = named[0] if named else _by_shape(settings, cpus, gpus)
    price = None if instance is None else known.usd_per_hour.get(instance)
    return Node(instance, price, cpus, gpus, dict(deployments))


def _by_shape(settings: Settings, cpus: float, gpus: float) -> str | None:
    """A node without the custom resource is the only kind of machine that there is, or the one that looks like it."""
    if len(settings.fleet) == 1:
        return settings.fleet[0].instance
    like = [shape.instance for shape in settings.fleet if (shape.cpus, shape.gpus) == (cpus, gpus)]
    return like[0] if len(like) == 1 else None


def rates(nodes: Sequence[Node], reserved: Mapping[str, Reserve]) -> dict[str, float]:
    """Dollars an hour by item: `small`, `large`, `router`, `gateway`, and `unused`, what nobody reserves of a machine in use.

    A machine with GPUs is paid for its GPUs, any other for its CPUs. One without an engine is the gateway's (the head, mostly), or
    unused if it has GPUs: its engine still starts, or nobody needs it.
    """
    items: Counter[str] = Counter()
    for machine in nodes:
        for item, share in _shares(machine, reserved).items():
            items[item] += share * (machine.usd_per_hour or 0.0)  # type: ignore[assignment]
    return {item: float(rate) for item, rate in items.items()}


def _shares(machine: Node, reserved: Mapping[str, Reserve]) -> dict[str, float]:
    by_gpu = machine.gpus > 0 and any(reserved[name].gpus for name in machine.deployments if name in reserved)
    total = machine.gpus if by_gpu else machine.cpus
    used: Counter[str] = Counter()
    for name, replicas in machine.deployments.items():
        reserve = reserved.get(name, Reserve(0, 0))
        used[ENGINES.get(name, GATEWAY)] += replicas * (reserve.gpus if by_gpu else reserve.cpus)  # type: ignore[assignment]
    engines = sum(share for item, share in used.items() if item != GATEWAY)
    if not engines or total <= 0:
        return {UNUSED if machine.gpus else GATEWAY: 1.0}
    scale = max(total, float(sum(used.values())))  # more reserved than there is would be charged twice
    shares = {item: share / scale for item, share in used.items()}
    return {**shares, UNUSED: max(0.0, 1.0 - sum(shares.values()))}
