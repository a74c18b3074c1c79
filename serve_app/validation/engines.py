"""The engines' settings: names that vLLM knows, values that it would refuse minutes later, in the replica."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app import demo
from serve_app.explain import nearest
from serve_app.settings import EngineSettings, Model, Settings
from serve_app.validation.bounds import Bound
from serve_app.validation.report import Report
from serve_app.validation.sources import vllm_keys

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
SET_ELSEWHERE = {"model": "model.source", "served_model_name": "model.id"}
_COUNT = Bound(1, whole=True)
_COUNT_OR_NULL = Bound(1, whole=True, nullable=True)
BOUNDS = {
    "tensor_parallel_size": _COUNT,
    "pipeline_parallel_size": _COUNT,
    "max_model_len": _COUNT_OR_NULL,
    "max_num_seqs": _COUNT_OR_NULL,
    "max_num_batched_tokens": _COUNT_OR_NULL,
    "long_prefill_token_threshold": Bound(whole=True),
    "kv_cache_memory_bytes": _COUNT_OR_NULL,
    "gpu_memory_utilization": Bound(0, 1, above=True),
}
AUTO_LENGTH = -1  # vLLM then takes the longest context that fits
BIG_GPU_MIB = 70 * 1024
LONG_CONTEXT_ENV = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


def check(settings: Settings, report: Report) -> list[str]:
    """Returns the names of the engines whose numbers are numbers, so that their fit can be checked."""
    known = vllm_keys()
    if known is None:
        report.warning("vllm", "not installed here, or with its arguments elsewhere: the names in engine_kwargs were not checked")
    sound = []
    for name, engine in settings.engines.items():
        where = f"args.{name}"
        _check_names(engine.engine_kwargs, known, where, report)
        _check_refused(engine, where, report)
        _check_source(engine.model.source, where, report)
        if _check_numbers(engine.engine_kwargs, where, report):
            sound.append(name)
            _check_length(engine, where, report)
            _check_batch(engine, _batch_defaults(engine, settings), where, report)
    if "router_llm" in sound:
        _check_rating(settings, report)
    return sound


def context(engine: EngineSettings) -> int | None:
    """Tokens of the longest sequence: as set, or the model's own; None when unknown or left to vLLM."""
    length = engine.engine_kwargs.get("max_model_len")
    if length == AUTO_LENGTH:
        return None
    return int(length) if length is not None else _own_context(engine.model)


def _check_names(kwargs: Mapping[str, Any], known: frozenset[str] | None, where: str, report: Report) -> None:
    for key in kwargs:
        path = f"{where}.engine_kwargs.{key}"
        if key in SET_ELSEWHERE:
            report.problem(path, f"Ray refuses it here: set {where}.{SET_ELSEWHERE[key]}")
        elif known is not None and key not in known:
            report.problem(path, f"unknown vLLM argument{nearest(key, sorted(known))}")


def _check_refused(engine: EngineSettings, where: str, report: Report) -> None:
    """Names that vLLM knows, with values that `ray.serve.llm` does not let through."""
    kwargs = engine.engine_kwargs
    if kwargs.get("disable_log_stats"):
        report.problem(f"{where}.engine_kwargs.disable_log_stats", "Ray refuses it: the engine's metrics come from these statistics")
    backend = kwargs.get("distributed_executor_backend", "ray")
    if engine.accelerator_type is not None and backend != "ray":
        report.problem(f"{where}.engine_kwargs.distributed_executor_backend", f"on GPUs Ray allows only 'ray', got {backend!r:.60}")


def _check_source(source: str, where: str, report: Report) -> None:
    path = f"{where}.model.source"
    if source.startswith(demo.BUILTIN):
        try:
            demo.resolve(source)
        except FileNotFoundError as error:
            report.problem(path, str(error))
    elif not _is_folder(source) and not REPOSITORY.fullmatch(source):
        report.problem(path, f"{source!r:.80} is neither builtin:NAME, nor a folder here, nor ORGANISATION/NAME of Hugging Face")


def _is_folder(source: str) -> bool:
    try:
        return Path(source).is_dir()
    except (OSError, ValueError):  # too long for a path, or with a null byte
        return False


def _check_numbers(kwargs: Mapping[str, Any], where: str, report: Report) -> bool:
    before = len(report.problems)
    for key, bound in BOUNDS.items():
        if key not in kwargs or (key == "max_model_len" and kwargs[key] == AUTO_LENGTH):
            continue
        if complaint := bound.complaint(kwargs[key]):
            report.problem(f"{where}.engine_kwargs.{key}", complaint)
    return len(report.problems) == before


def _check_length(engine: EngineSettings, where: str, report: Report) -> None:
    length, own = engine.engine_kwargs.get("max_model_len"), _own_context(engine.model)
    allowed = engine.env.get(LONG_CONTEXT_ENV, "0").lower() in ("1", "true") or "hf_overrides" in engine.engine_kwargs
    if length is not None and own is not None and length > own and not allowed:
        report.problem(f"{where}.engine_kwargs.max_model_len", f"{length} is more than the model's own longest context of {own} tokens")


def _own_context(model: Model) -> int | None:
    """`max_context`, or what the config.json beside the weights says; None for a model that is not here."""
    if model.max_context is not None:
        return model.max_context
    try:
        config = json.loads((Path(demo.resolve(model.source)) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    length = config.get("max_position_embeddings")
    # A scaled rotary embedding reaches further by rules of vLLM's own: then this check says nothing.
    return length if isinstance(length, int) and "factor" not in rope else None


def _batch_defaults(engine: EngineSettings, settings: Settings) -> int:
    """`max_num_batched_tokens` where it is not set, by vLLM's `EngineArgs.get_batch_defaults` for a server."""
    world = int(engine.engine_kwargs.get("tensor_parallel_size", 1)) * int(engine.engine_kwargs.get("pipeline_parallel_size", 1))
    if engine.accelerator_type is None:
        tokens = 2048 * world
    else:
        memory = max((node.gpu_mib for node in settings.fleet if node.gpu == engine.accelerator_type), default=0)
        tokens = 8192 if memory >= BIG_GPU_MIB else 2048
    return 2 * tokens if engine.engine_kwargs.get("performance_mode") == "throughput" else tokens


def _check_batch(engine: EngineSettings, default: int, where: str, report: Report) -> None:
    """The rules of vLLM's `SchedulerConfig.verify_max_model_len`, in its order."""
    kwargs, path = engine.engine_kwargs, f"{where}.engine_kwargs"
    length, seqs, tokens = context(engine), kwargs.get("max_num_seqs"), kwargs.get("max_num_batched_tokens")
    chunked = kwargs.get("enable_chunked_prefill") is not False
    if tokens is not None and length is not None and tokens < length and not chunked:
        text = f"{tokens} is less than max_model_len ({length}): vLLM refuses that with enable_chunked_prefill false"
        report.problem(f"{path}.max_num_batched_tokens", text)
    elif seqs is not None and (tokens if tokens is not None else default) < seqs and (tokens is not None or chunked):
        shown = tokens if tokens is not None else f"{default}, vLLM's default,"
        report.problem(f"{path}.max_num_batched_tokens", f"{shown} is less than max_num_seqs ({seqs}): vLLM refuses that")
    threshold = kwargs.get("long_prefill_token_threshold", 0)
    if length is not None and threshold > length:
        report.problem(f"{path}.long_prefill_token_threshold", f"{threshold} is more than max_model_len ({length}): vLLM refuses that")


def _check_rating(settings: Settings, report: Report) -> None:
    length, prompt = context(settings.router_llm), settings.router.assess_max_tokens
    if length is not None and length < prompt + 1:
        text = f"{length} is less than the {prompt} tokens of args.router.assess_max_tokens and the one of the rating"
        report.problem("args.router_llm.engine_kwargs.max_model_len", text)
