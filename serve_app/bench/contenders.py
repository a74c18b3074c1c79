"""How each contender is started, and which of its processes are the engine.

One Ray cluster holds tierwise, Ray's own OpenAI app and the bare hop as three applications, so that they share the proxy and
the idle cost; LiteLLM's proxy stands in front of the canned generator over HTTP, from an environment of its own.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from serve_app.bench import processes
from serve_app.bench.processes import Part, Processes, free_port, stop
from serve_app.demo import resolve
from serve_app.errors import RequestError
from serve_app.keys import yaml_lines

BIN = Path(sys.executable).parent
PACKAGE = Path(__file__).resolve().parents[2]
LITELLM_ENV = "TIERWISE_BENCH_LITELLM"
SMALL, LARGE = "tiny-llama-small", "tiny-llama-large"
TRANSPORTS: dict[str, dict[str, str]] = {
    "default": {},
    "throughput": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
}
READY_S = 180.0
APPS = {"tierwise": "", "ray.serve.llm": "/rayllm", "bare hop": "/bare"}
OF_APP = {"tierwise": "tierwise", "ray.serve.llm": "rayllm", "bare hop": "bare"}
ENGINES = re.compile(r"SmallTier|LargeTier|LLMServer|BareEngine")
KEY = "tierwise-bench-key"  # of a server on loopback that lives as long as the measurement
AUTHORISED = {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class Contender:
    """What load is put on. `own` are the processes that are there for it alone: what it needs in memory."""

    name: str
    url: str
    model: str
    processes: Processes
    own: Part
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def direct(folder: Path) -> Iterator[Contender]:
    """The canned generator asked directly: what nothing in between would cost."""
    port = free_port()
    with _process([str(BIN / "python"), "-m", "serve_app.bench.canned", "--port", str(port)], folder / "canned.log") as process:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/v1/models", process, folder / "canned.log")
        yield Contender("direct", url, "canned", Processes(process.pid, lambda _: True), lambda _: True)


@contextmanager
def litellm(folder: Path, engine_url: str) -> Iterator[Contender]:
    """LiteLLM's proxy with its complexity router before two names of the same engine. Raises `RequestError` when it is not installed."""
    binary = Path(os.environ.get(LITELLM_ENV, ".bench/litellm")) / "bin" / "litellm"
    if not binary.is_file():
        raise RequestError(f"{binary}: not there; `make bench` installs LiteLLM, {LITELLM_ENV} names another environment")
    port, config = free_port(), folder / "litellm.yaml"
    config.write_text(json.dumps(litellm_config(engine_url)), encoding="utf-8")  # JSON is YAML
    command = [str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with _process(command, folder / "litellm.log") as process:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/health/liveliness", process, folder / "litellm.log")
        yield Contender("LiteLLM", url, "auto", Processes(process.pid, lambda _: False), lambda _: True)


def litellm_config(engine_url: str) -> dict[str, Any]:
    def tier(name: str, model: str) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": f"openai/{model}", "api_base": f"{engine_url}/v1", "api_key": "none"}}

    tiers = {"SIMPLE": "small", "MEDIUM": "small", "COMPLEX": "large", "REASONING": "large"}
    router = {"model": "auto_router/complexity_router", "complexity_router_config": {"tiers": tiers}}
    return {
        "model_list": [tier("small", SMALL), tier("large", LARGE), {"model_name": "auto", "litellm_params": router}],
        "litellm_settings": {"telemetry": False, "drop_params": True},
    }


@contextmanager
def on_ray(folder: Path, transport: str) -> Iterator[list[Contender]]:
    """The three Ray applications in one cluster, the canned generator in place of vLLM."""
    canned = {"RAYLLM_VLLM_ENGINE_CLS": "serve_app.bench.canned_engine.CannedEngine"}
    with _serving(folder, transport, APPS, canned) as (base, process):
        yield [
            Contender(
                f"{name}, {transport}",
                f"{base}{prefix}",
                "auto" if name == "tierwise" else SMALL,
                Processes(process.pid, is_engine),
                _of_app(OF_APP[name]),
                AUTHORISED if name == "tierwise" else {},
            )
            for name, prefix in APPS.items()
        ]


@contextmanager
def with_vllm(folder: Path, transport: str) -> Iterator[Contender]:
    """tierwise alone, with the local profile's engines: vLLM on CPU."""
    with _serving(folder, transport, {"tierwise": ""}, {}) as (base, process):
        yield Contender(f"tierwise, {transport}", base, "auto", Processes(process.pid, is_engine), _of_app("tierwise"), AUTHORISED)


@contextmanager
def _serving(folder: Path, transport: str, apps: dict[str, str], more: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port, keys, config, log = free_port(), folder / "keys.yaml", folder / "bench.yaml", folder / "serve.log"
    wanted = serve_config(port, folder, keys)
    wanted["applications"] = [app for app in wanted["applications"] if app["name"] in {OF_APP[name] for name in apps}]
    config.write_text(yaml.safe_dump(wanted), encoding="utf-8")
    keys.write_text(yaml_lines("bench", KEY, admin=True), encoding="utf-8")
    env = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.deployments.proxy:middlewares",
        "PYTHONPATH": str(PACKAGE),
        **more,
        **TRANSPORTS[transport],
    }
    with _process([str(BIN / "serve"), "run", str(config)], log, env) as process:
        base = f"http://127.0.0.1:{port}"
        for prefix in apps.values():
            _wait_answer(f"{base}{prefix}", process, log, AUTHORISED)
        yield base, process


def serve_config(port: int, folder: Path, keys: Path) -> dict[str, Any]:
    """deployments.yaml of the comparison."""
    tierwise = {
        "profile": "local",
        "auth": {"mode": "keys", "keys_file": str(keys)},
        "ledger": {"url": f"sqlite:///{folder}/ledger.db"},
        **{name: {"num_cpus": 0.1} for name in ("small", "large", "router_llm")},
    }
    apps = [
        {"name": "tierwise", "import_path": "serve_app.app:build", "route_prefix": "/", "args": tierwise},
        {"name": "rayllm", "import_path": "ray.serve.llm:build_openai_app", "route_prefix": "/rayllm", "args": _ray_llm()},
        {"name": "bare", "import_path": "serve_app.bench.bare:build", "route_prefix": "/bare", "args": {}},
    ]
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": apps}


def _ray_llm() -> dict[str, Any]:
    def engine(name: str) -> dict[str, Any]:
        return {
            "model_loading_config": {"model_id": name, "model_source": resolve(f"builtin:{name}")},
            "accelerator_config": {"kind": "cpu"},
            "placement_group_config": {"bundles": [{"CPU": 0.05}]},
            "deployment_config": {
                "num_replicas": 1,
                "max_ongoing_requests": 512,
                "ray_actor_options": {"num_cpus": 0.02},
            },
        }

    ingress = {"num_replicas": 1, "max_ongoing_requests": 512, "ray_actor_options": {"num_cpus": 0.02}, "autoscaling_config": None}
    return {"llm_configs": [engine(SMALL), engine(LARGE)], "ingress_deployment_config": ingress}


def is_engine(title: str) -> bool:
    replica = processes.replica_of(title)
    return replica is not None and ENGINES.search(replica[1]) is not None


def _of_app(app: str) -> Part:
    return lambda title: (replica := processes.replica_of(title)) is not None and replica[0] == app


@contextmanager
def _process(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose output goes to `log`, stopped with everything that it started."""
    with log.open("wb") as output, ExitStack() as stack:
        process = subprocess.Popen(  # noqa: S603 - commands of this file
            command, env={**os.environ, **(env or {})}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        stack.callback(stop, process)
        yield process


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    _until(lambda: httpx.get(url, timeout=5.0).is_success, process, log, url)


def _wait_answer(base: str, process: subprocess.Popen[bytes], log: Path, headers: dict[str, str]) -> None:
    body = {"model": SMALL, "messages": [{"role": "user", "content": "ready?"}], "max_tokens": 2}
    _until(lambda: httpx.post(f"{base}/v1/chat/completions", json=body, headers=headers, timeout=10.0).is_success, process, log, base)


def _until(asked: Any, process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.HTTPError):
            if asked():
                return
        time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise RequestError(f"{what} did not answer in {READY_S:.0f} s; the end of {log}:\n{tail}")
