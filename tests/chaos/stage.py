"""The graphs of the suite: one runs at a time, and stays while the next test wants the same."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from tests.graph import REPO, Graph, running

THROUGHPUT = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
EVERY_SECOND = {"RAY_metrics_report_interval_ms": "1000"}
# Short enough that a hung engine is found out within a test, long enough for two cores that are busy.
QUICK = {"request_s": 20.0, "first_token_s": 10.0, "between_tokens_s": 5.0}
REAL_STALL_S = 15.0
LIVE = {"decisive_margin": 1.0}  # the router LLM is always asked, so that its faults show


def base() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((REPO / "deployments.yaml").read_text())
    return config


def fake(folder: Path) -> dict[str, Any]:
    """Scripted engines of 8 sequences at 0.2 s, short queues, quick deadlines."""
    config = base()
    application = config["applications"][0]
    application["import_path"] = "tests.chaos.fake_engines:build"
    for deployment in application["deployments"]:  # a replica that starts under load would be measured instead of the load
        if deployment.pop("autoscaling_config", None) is not None:
            deployment["num_replicas"] = 1
    queues = {"max_ongoing_requests": 104, "max_queued_requests": 8, "health_check_period_s": 2.0, "graceful_shutdown_timeout_s": 10.0}
    application["args"] = {
        "profile": "local",
        "ingress": {"max_wait_s": 60.0},  # the count alone bounds a tier's queue: 112, in the engine but for 8
        "small": queues,
        "large": queues,
        "router": {"assess_deadline_s": 1.0, "embed_deadline_s": 3.0},
        "timeouts": QUICK,
        "limits": {"body_timeout_s": 5.0},
        "ledger": {"url": f"sqlite:///{folder}/tierwise.db", "store_prompts": True},  # mirrored answers need them
        "mirror": {"timeout_s": 4.0, "queue": 8},  # one that hangs is over soon after its test
    }
    return _live(config, LIVE)


def real(folder: Path) -> dict[str, Any]:
    """deployments.yaml as it is, with deadlines that end within a test."""
    config = base()
    config["applications"][0]["args"] |= {
        "small": {"stall_s": REAL_STALL_S},
        "timeouts": {"request_s": 40.0, "first_token_s": 10.0, "between_tokens_s": 10.0},
        "ledger": {"url": f"sqlite:///{folder}/tierwise.db"},
    }
    return _live(config, {"threshold": "auto"})


def _live(config: dict[str, Any], user_config: dict[str, Any]) -> dict[str, Any]:
    config["applications"][0]["deployments"][0]["user_config"] = user_config
    return config


KINDS = {"default": (fake, {}, 200.0), "throughput": (fake, THROUGHPUT, 200.0), "vllm": (real, {}, 400.0)}


class Stage:
    """Owns the graph that runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._name = ""
        self._graph: Graph | None = None

    def graph(self, name: str) -> Graph:
        """The graph of that name, started if another one or none runs."""
        if self._graph is None or self._name != name:
            self.close()
            folder = self._folder / name
            folder.mkdir(exist_ok=True)
            config, env, timeout = KINDS[name]
            self._graph = self._stack.enter_context(running(folder, config(folder), env={**EVERY_SECOND, **env}, timeout=timeout))
            self._name = name
        return self._graph

    def close(self) -> None:
        self._stack.close()
        self._graph = None


def deploy(graph: Graph, *, ingress: dict[str, Any] | None = None, user_config: dict[str, Any] | None = None) -> None:
    """Change the running application: how the ingress is deployed, or what is live."""
    config = yaml.safe_load(graph.config.read_text())
    deployment = config["applications"][0]["deployments"][0]
    deployment["user_config"] |= user_config or {}
    if ingress is not None:
        deployment.pop("autoscaling_config", None)
        deployment |= ingress
    changed = graph.config.with_name("changed.yaml")
    changed.write_text(yaml.safe_dump(config))
    graph.run("serve", "deploy", str(changed))
