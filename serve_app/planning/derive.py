"""The g6e fleet's speeds from physical limits: not measured, and marked so. Replace them by `tierwise plan --engines FILE`.

A decode step reads all weights and the KV cache once: bytes over nominal bandwidth, times an efficiency of 60-80 %. A token costs two
operations for each parameter, at half of the nominal rate. Between the L40S there is no NVLink: what tensor parallelism exchanges
goes over PCIe 4 (32 GB/s each way).
"""

from dataclasses import dataclass

from serve_app.planning.config import Engines, Service
from serve_app.planning.speeds import EngineSpeeds
from serve_app.settings import EngineSettings, Settings, parse

BANDWIDTH = 864e9  # bytes a second of one L40S
HALF_PRECISION, EIGHT_BIT = 362e12, 733e12  # dense operations a second of one L40S (datasheet)
COMPUTE_EFFICIENCY = 0.5
PCIE, PCIE_EFFICIENCY = 32e9, 0.7
HOP_S = 20e-6  # one all-reduce of almost nothing
BOOT_S, LOAD_BYTES_S, INIT_S = 120.0, 0.5e9, 60.0  # a node joins; weights from a volume; vLLM's start with CUDA graphs
EFFICIENCY = 0.7


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model the derivation needs. `read_bytes` is what one decode step reads of the weights."""

    read_bytes: float
    parameters: float
    operations: float  # nominal rate of one GPU at the model's precision
    layers: int
    hidden: int
    instance: str


SMALL = Shape(4.65e9, 8.03e9, HALF_PRECISION, 32, 4096, "g6e.xlarge")  # w4a16 computes in half precision
LARGE = Shape(70.6e9, 70.6e9, EIGHT_BIT, 80, 8192, "g6e.12xlarge")


def engines(efficiency: float = EFFICIENCY) -> Engines:
    """The profile's engines (limits, KV cache) with derived speeds. `efficiency` is the part of the bandwidth that decoding reaches."""
    profile = parse({"profile": "g6e"})
    used = {"g6e.xlarge": profile.small.num_cpus, "g6e.12xlarge": profile.large.num_cpus}
    service = Service(cpus_used=used, max_wait_s=profile.ingress.max_wait_s)
    small, large = speeds(SMALL, profile.small, profile, efficiency), speeds(LARGE, profile.large, profile, efficiency)
    return Engines(small=small, large=large, service=service)


def speeds(shape: Shape, engine: EngineSettings, profile: Settings, efficiency: float) -> EngineSpeeds:
    gpus, kwargs = engine.gpus, engine.engine_kwargs
    bandwidth = BANDWIDTH * gpus * efficiency
    token_s = 2 * shape.parameters / (shape.operations * gpus * COMPUTE_EFFICIENCY) + _exchange_s(shape, gpus)
    return EngineSpeeds(
        instance=shape.instance,
        source=f"derived from physical limits at {efficiency:.0%} of the bandwidth; not measured",
        base_s=shape.read_bytes / bandwidth + (2 * shape.layers * HOP_S if gpus > 1 else 0.0),
        per_sequence_s=token_s,
        per_prompt_token_s=token_s,
        per_context_token_s=_kv_bytes(engine) / bandwidth,
        max_num_seqs=int(kwargs["max_num_seqs"]),
        max_num_batched_tokens=int(kwargs["max_num_batched_tokens"]),
        kv_tokens=_kv_tokens(engine, profile),
        cold_start_s=round(BOOT_S + shape.read_bytes / LOAD_BYTES_S + INIT_S),
        request_s=0.01,
    )


def _exchange_s(shape: Shape, gpus: int) -> float:
    """What a token's two all-reduces for each layer take on the wire, in a ring."""
    sent = 2 * shape.layers * shape.hidden * 2 * 2 * (gpus - 1) / gpus
    return sent / (PCIE * PCIE_EFFICIENCY) if gpus > 1 else 0.0


def _kv_bytes(engine: EngineSettings) -> float:
    return 0.0 if engine.model.memory is None else engine.model.memory.kv_kib_per_token * 1024


def _kv_tokens(engine: EngineSettings, profile: Settings) -> int:
    """What the weights and the allowance leave of the GPUs' memory."""
    gpu_mib = next(node.gpu_mib for node in profile.fleet if node.gpu == engine.accelerator_type)
    memory = engine.model.memory
    if memory is None:
        return 1
    free = engine.gpus * (gpu_mib * float(engine.engine_kwargs["gpu_memory_utilization"]) - memory.overhead_mib) - memory.weights_mib
    return int(free * 1024 / memory.kv_kib_per_token)
