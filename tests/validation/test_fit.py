"""`tierwise validate`: what does not fit its GPUs or nodes."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.settings import Settings, parse
from serve_app.validate import Report
from serve_app.validation import fit
from tests.validation.common import changed, report_of

# --- the fit on GPUs

GPU_MISTAKES = [
    (
        "args.large.engine_kwargs.tensor_parallel_size",
        1,
        (
            "args.large: 69,330 MiB of weights and 10,240 MiB of KV cache (one sequence of 32,768 tokens) over 1 GPU, and 3,072 MiB "
            "beside them, need 82,642 MiB a GPU; one L40S offers 41,198 of 45,776 (gpu_memory_utilization 0.9): use tensor_parallel_size 4"
        ),
    ),
    (
        "args.large.engine_kwargs.tensor_parallel_size",
        2,
        (
            "args.large: 69,330 MiB of weights and 10,240 MiB of KV cache (one sequence of 32,768 tokens) over 2 GPUs, and 3,072 MiB "
            "beside them, need 42,857 MiB a GPU; one L40S offers 41,198 of 45,776 (gpu_memory_utilization 0.9): "
            "use tensor_parallel_size 4, or max_model_len 21504 or less"
        ),
    ),
    (
        "args.large.engine_kwargs.tensor_parallel_size",
        8,
        (
            "args.large.engine_kwargs.tensor_parallel_size: 8 GPUs on one node (STRICT_PACK), "
            "but no g6e.12xlarge of args.fleet has more than 4 L40S"
        ),
    ),
    (
        "args.large.instance",
        "g6e.xlarge",
        (
            "args.large.engine_kwargs.tensor_parallel_size: 4 GPUs on one node (STRICT_PACK), "
            "but no g6e.xlarge of args.fleet has more than 1 L40S"
        ),
    ),
    ("args.small.instance", "g6e.xlarg", "args.small.instance: no node of args.fleet is 'g6e.xlarg', did you mean 'g6e.xlarge'?"),
    (
        "args.small.instance",
        "h100",
        "args.small.instance: no node of args.fleet is 'h100'; known: g6e.12xlarge, g6e.xlarge",
    ),
    (
        "args.small.num_cpus",
        5,
        "args.small.num_cpus: 5 CPUs on one node; the largest of args.fleet that it could use, g6e.xlarge, has 4",
    ),
    (
        "args.large.num_cpus",
        50,
        "args.large.num_cpus: 50 CPUs on one node; the largest of args.fleet that it could use, g6e.12xlarge, has 48",
    ),
    ("args.large.model.memory", None, "args.large.model.memory: needed to check the fit on its GPUs"),
    ("args.large.accelerator_type", "L40", "args.large.accelerator_type: no g6e.12xlarge of args.fleet has 'L40', did you mean 'L40S'?"),
    (
        "args.large.engine_kwargs.distributed_executor_backend",
        "mp",
        "args.large.engine_kwargs.distributed_executor_backend: on GPUs Ray allows only 'ray', got 'mp'",
    ),
    (
        "args.small.engine_kwargs.max_model_len",
        200000,
        "args.small.engine_kwargs.max_model_len: 200000 is more than the model's own longest context of 131072 tokens",
    ),
    (
        "args.small.engine_kwargs.kv_cache_memory_bytes",
        2**30,
        (
            "args.small: 5,470 MiB of weights and 4,096 MiB of KV cache (one sequence of 32,768 tokens) over 1 GPU, and 3,072 MiB beside "
            "them, need 12,638 MiB a GPU; one L40S offers 45,776 of 45,776 (kv_cache_memory_bytes 1073741824): "
            "use max_model_len 8192 or less"
        ),
    ),
    (
        "args.small.model.memory.weights_mib",
        400000,
        (
            "args.small: 400,000 MiB of weights and 4,096 MiB of KV cache (one sequence of 32,768 tokens) over 1 GPU, and 3,072 MiB beside "
            "them, need 407,168 MiB a GPU; one L40S offers 41,198 of 45,776 (gpu_memory_utilization 0.9): "
            "no node of args.fleet has room for it"
        ),
    ),
]


@pytest.mark.parametrize(("path", "value", "line"), GPU_MISTAKES)
def test_what_does_not_fit_is_one_line_with_its_numbers(tmp_path: Path, path: str, value: Any, line: str) -> None:
    assert report_of(tmp_path, changed(path, value, "g6e")).problems == [line]


def test_the_advice_on_the_context_is_true(tmp_path: Path) -> None:
    config = changed("args.large.engine_kwargs", {"tensor_parallel_size": 2, "max_model_len": 21504}, "g6e")
    assert report_of(tmp_path, config).problems == []


def test_several_nodes_may_share_an_engine_when_it_is_not_packed_strictly(tmp_path: Path) -> None:
    config = changed("args.large", {"placement_strategy": "PACK", "engine_kwargs": {"tensor_parallel_size": 8}}, "g6e")
    assert report_of(tmp_path, config).problems == []


def test_a_length_left_to_vllm_fits_with_the_weights(tmp_path: Path) -> None:
    assert report_of(tmp_path, changed("args.large.engine_kwargs.max_model_len", -1, "g6e")).problems == []


def test_vllms_default_share_of_the_gpu_is_read_from_vllm() -> None:
    small = parse({"profile": "g6e"}).small
    kwargs = {key: value for key, value in small.engine_kwargs.items() if key != "gpu_memory_utilization"}
    memory = {"weights_mib": 39000, "kv_kib_per_token": 0.001, "overhead_mib": 3072}
    args = {"profile": "g6e", "small": {"model": {"memory": memory}}}
    tight = parse(args)
    roomy = Settings.model_validate({**tight.model_dump(), "small": {**tight.small.model_dump(), "engine_kwargs": kwargs}})
    report = Report()
    fit.check(roomy, ["small"], report)
    assert report.problems == []  # 42,072 MiB are over 0.90 of 45,776 but under vLLM's 0.92
    fit.check(tight, ["small"], report)
    assert len(report.problems) == 1
