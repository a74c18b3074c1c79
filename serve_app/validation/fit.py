"""Whether each replica fits a node of the fleet: GPUs, CPUs and GPU memory."""

from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.explain import nearest
from serve_app.settings import EngineSettings, ModelMemory, NodeShape, Settings
from serve_app.validation.engines import context
from serve_app.validation.report import Report
from serve_app.validation.sources import gpu_memory_utilization

MIB = 1024 * 1024


def check(settings: Settings, engines: Iterable[str], report: Report) -> None:
    for name in ("ingress", "embedder"):
        _check_cpus(f"args.{name}", getattr(settings, name).num_cpus, settings.fleet, report)
    for name in engines:
        _check_engine(f"args.{name}", settings.engines[name], settings, report)


def _check_engine(where: str, engine: EngineSettings, settings: Settings, report: Report) -> None:
    nodes = _nodes_of(engine, where, settings.fleet, report)
    if nodes and engine.accelerator_type is not None:
        nodes = _nodes_with(engine, where, nodes, report)
        if nodes:
            _check_memory(where, engine, nodes, report)
    if not nodes:
        return  # said where they were looked for
    if engine.placement_strategy == "STRICT_PACK":
        nodes = [node for node in nodes if node.gpus >= engine.gpus]
        if not nodes:
            return  # said by `_nodes_with`
        _check_cpus(where, engine.num_cpus, nodes, report)
    else:
        # The first bundle holds the replica's half and one GPU's share of the workers' half.
        _check_cpus(where, engine.num_cpus / 2 * (1 + 1 / max(engine.gpus, 1)), nodes, report)


def _check_cpus(where: str, cpus: float, nodes: list[NodeShape], report: Report) -> None:
    largest = max(nodes, key=lambda node: node.cpus)
    if cpus > largest.cpus:
        text = f"{cpus:g} CPUs on one node; the largest of args.fleet that it could use, {largest.instance}, has {largest.cpus:g}"
        report.problem(f"{where}.num_cpus", text)


def _nodes_of(engine: EngineSettings, where: str, fleet: list[NodeShape], report: Report) -> list[NodeShape]:
    """The nodes that the engine keeps to: those of its instance type, or all."""
    if engine.instance is None:
        return fleet
    nodes = [node for node in fleet if node.instance == engine.instance]
    if not nodes:
        known = nearest(engine.instance, sorted(node.instance for node in fleet))
        report.problem(f"{where}.instance", f"no node of args.fleet is {engine.instance!r:.60}{known}")
    return nodes


def _nodes_with(engine: EngineSettings, where: str, fleet: list[NodeShape], report: Report) -> list[NodeShape]:
    """The nodes that have this GPU at all."""
    nodes = [node for node in fleet if node.gpu == engine.accelerator_type and node.gpus > 0]
    gpus = sorted({node.gpu for node in fleet if node.gpu is not None})
    none = f"no {engine.instance or 'node'} of args.fleet has"
    if not nodes:
        known = nearest(str(engine.accelerator_type), gpus) if gpus else "; none has a GPU"
        report.problem(f"{where}.accelerator_type", f"{none} {engine.accelerator_type!r}{known}")
    elif engine.placement_strategy == "STRICT_PACK" and engine.gpus > (most := max(node.gpus for node in nodes)):
        text = f"{engine.gpus} GPUs on one node (STRICT_PACK), but {none} more than {most} {engine.accelerator_type}"
        report.problem(f"{where}.engine_kwargs.tensor_parallel_size", text)
    return nodes


@dataclass(frozen=True)
class Need:
    """GPU memory in MiB; `cache` is the KV cache of one longest sequence, over all GPUs together."""

    memory: ModelMemory
    length: int
    offer: float
    reserved: float | None = None  # KV cache of each GPU, where it is set outright

    @property
    def cache(self) -> float:
        return self.memory.kv_kib_per_token * self.length / 1024

    def of_each(self, gpus: int) -> float:
        cache = self.cache / gpus if self.reserved is None else max(self.reserved, self.cache / gpus)
        return self.memory.weights_mib / gpus + cache + self.memory.overhead_mib

    def fits(self, gpus: int) -> bool:
        return self.of_each(gpus) <= self.offer and (self.reserved is None or self.cache / gpus <= self.reserved)

    def longest(self, gpus: int) -> int:
        """Tokens that would fit, in full KiB of tokens; 0 when not even the weights do."""
        room = (self.offer - self.memory.overhead_mib) * gpus - self.memory.weights_mib
        room = room if self.reserved is None else min(room, self.reserved * gpus)
        return max(0, int(room * 1024 / self.memory.kv_kib_per_token) // 1024 * 1024)


def _check_memory(where: str, engine: EngineSettings, nodes: list[NodeShape], report: Report) -> None:
    if engine.model.memory is None:
        report.problem(f"{where}.model.memory", "needed to check the fit on its GPUs")
        return
    node = max(nodes, key=lambda node: node.gpu_mib)
    share = float(engine.engine_kwargs.get("gpu_memory_utilization", gpu_memory_utilization()))
    reserved = engine.engine_kwargs.get("kv_cache_memory_bytes")  # vLLM then ignores gpu_memory_utilization
    need = Need(
        memory=engine.model.memory,
        length=context(engine) or 0,
        offer=node.gpu_mib * share if reserved is None else node.gpu_mib,
        reserved=None if reserved is None else reserved / MIB,
    )
    if not need.fits(engine.gpus):
        limit = f"gpu_memory_utilization {share:g}" if reserved is None else f"kv_cache_memory_bytes {reserved}"
        advice = _advice(engine, need, max(node.gpus for node in nodes))
        report.problem(
            where, f"{_sum(engine.gpus, need)}; one {node.gpu} offers {need.offer:,.0f} of {node.gpu_mib:,.0f} ({limit}): {advice}"
        )


def _sum(gpus: int, need: Need) -> str:
    memory, each = need.memory, need.of_each(gpus)
    cache = f"{need.cache:,.0f} MiB of KV cache (one sequence of {need.length:,} tokens)"
    return (
        f"{memory.weights_mib:,.0f} MiB of weights and {cache} over {gpus} GPU{'' if gpus == 1 else 's'}, "
        f"and {memory.overhead_mib:,.0f} MiB beside them, need {each:,.0f} MiB a GPU"
    )


def _advice(engine: EngineSettings, need: Need, most: int) -> str:
    """More GPUs in powers of two, as attention heads divide, or a shorter context."""
    stages = int(engine.engine_kwargs.get("pipeline_parallel_size", 1))
    sizes = [size for size in (2, 4, 8, 16) if engine.gpus < size * stages <= most and need.fits(size * stages)]
    ways = [f"tensor_parallel_size {sizes[0]}"] if sizes else []
    if length := need.longest(engine.gpus):
        ways.append(f"max_model_len {length} or less")
    return "use " + ", or ".join(ways) if ways else "no node of args.fleet has room for it"
