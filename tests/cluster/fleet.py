"""A fleet of logical nodes on this machine: each is a raylet of its own that claims what an instance of that type would have."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import httpx
import ray
import yaml
from ray import serve
from ray._common.utils import reset_ray_address
from ray._private.node import Node
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from serve_app.settings import NodeShape, parse
from tests.chaos.requests import MODELS
from tests.graph import REPO, free_port, wait_for

HEAD = "head"
SMALL_NODE, LARGE_NODE = "g6e.xlarge", "g6e.12xlarge"
PARTS = ("Ingress", "Embedder", "RouterLLM", "SmallTier", "LargeTier", "Ledger")
KINDS = {"small": SMALL_NODE, "large": LARGE_NODE}
MIB = 2**20
STORE = 80 * MIB  # the least that Ray takes is 75 MiB
SHORT = {"out_after_s": 1.0, "in_after_s": 5.0, "cooldown_s": 1.0, "stale_s": 5.0}
ENV = {
    "PYTHONPATH": str(REPO),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.deployments.proxy:middlewares",  # as `make serve` has it
}


@dataclass(frozen=True)
class Replica:
    """One replica as Serve sees it. `instance` is the kind of its node; empty while it has none."""

    id: str
    state: str
    instance: str
    node: str
    pid: int


class Fleet:
    """Owns the cluster, Serve on it, and every process of both. The driver is connected to the head."""

    def __init__(self, *, everywhere: bool = False, env: Mapping[str, str] | None = None) -> None:
        self._shapes: dict[str, NodeShape] = {shape.instance: shape for shape in parse({"profile": "g6e"}).fleet}
        self._instances: dict[str, str] = {}
        self.port = free_port()
        self.urls: dict[str, str] = {}  # of the proxies by node, where there is one on every node
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        self._environment = mock.patch.dict(os.environ, {**ENV, **(env or {})})
        self._environment.start()  # every node's processes inherit it
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False},
        )
        reset_ray_address()  # or whoever starts Ray on this machine meanwhile would join us
        ray.init(address=self.cluster.address, log_to_driver=False, configure_logging=False)
        self._instances[self.cluster.head_node.node_id] = HEAD
        location = "EveryNode" if everywhere else "HeadOnly"
        serve.start(proxy_location=location, http_options={"host": "127.0.0.1", "port": self.port})
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()
        self._environment.stop()
        signal.signal(signal.SIGTERM, self._on_sigterm)  # Ray has put its own in its place

    def shape(self, **instances: int) -> None:
        """Add and lose nodes until there are so many of each kind: `small=2, large=1`."""
        for name, instance in KINDS.items():
            have = [node for node in self.cluster.worker_nodes if self._instances[node.node_id] == instance]
            want = instances.get(name, 0)
            for node in have[want:]:
                self.lose(node)
            for _ in range(want - len(have)):
                self.add(instance)

    def add(self, instance: str) -> Node:
        """Another node of that type. In the main thread only: Ray sets a signal handler."""
        shape = self._shapes[instance]
        port = free_port()
        kinds = {f"accelerator_type:{shape.gpu}": 1, f"instance:{instance}": 1}
        node = self.cluster.add_node(
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            resources=kinds,
            object_store_memory=STORE,
            env_vars={"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(port)},
        )
        self.urls[node.node_id] = f"http://127.0.0.1:{port}"
        self._instances[node.node_id] = instance
        return node

    def node_of(self, deployment: str) -> Node:
        """The node of its first running replica."""
        (replica, *_) = self.replicas(deployment, "RUNNING")
        return next(node for node in self.cluster.worker_nodes if node.node_id == replica.node)

    def lose(self, node: Node) -> None:
        """All of a node's processes die at once, as when a machine is taken away."""
        self.cluster.remove_node(node, allow_graceful=False)

    def lose_head(self) -> None:
        """The GCS, Serve's controller and the head's own raylet and proxy die. The driver must have left: it would die with them."""
        for processes in self.cluster.head_node.all_processes.values():
            for each in processes:
                each.process.kill()

    def leave(self) -> None:
        """Nobody is connected to the cluster any more; what runs on it goes on."""
        ray.shutdown()

    def raylets(self) -> int:
        """Worker nodes that are still there."""
        processes = [process for node in self.cluster.worker_nodes for process in node.all_processes["raylet"]]
        return sum(each.process.poll() is None for each in processes)

    def deploy(self, config: Mapping[str, Any]) -> None:
        """As `serve deploy` does; returns at once."""
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config))

    def details(self) -> dict[str, Any]:
        application = _get_global_client().get_serve_details()["applications"].get("tierwise", {"deployments": {}, "status": "NONE"})
        return dict(application)

    def everything(self) -> dict[str, list[Replica]]:
        """Every replica by deployment, at one moment; empty while the application is built anew."""
        deployments = self.details()["deployments"]
        return {name: [self._replica(each) for each in deployments[name]["replicas"]] for name in PARTS if name in deployments}

    def replicas(self, deployment: str, *states: str) -> list[Replica]:
        """Those in one of `states`, or all."""
        return [replica for replica in self.everything().get(deployment, []) if not states or replica.state in states]

    def _replica(self, each: Mapping[str, Any]) -> Replica:
        node = each.get("node_id") or ""
        state = str(getattr(each["state"], "value", each["state"]))
        return Replica(str(each["replica_id"]), state, self._instances.get(node, ""), node, each.get("pid") or 0)

    def ready(self) -> bool:
        try:
            body = httpx.get(f"{self.url}/ready", timeout=5.0, trust_env=False).json()
            return all({**body["tiers"], **body["signals"]}.values())
        except (httpx.HTTPError, ValueError, KeyError):
            return False

    def wait_ready(self, seconds: float = 120.0) -> None:
        wait_for(self.ready, seconds, "every part of the graph to be ready")

    def wait_settled(self, seconds: float) -> None:
        """Until Serve has nothing left to do and every part is heard of."""
        wait_for(lambda: self.settled() and self.ready(), seconds, "Serve to be done")

    def settled(self) -> bool:
        """While the application is built anew, Serve lists no deployment at all."""
        status = self.details()["status"]
        return str(getattr(status, "value", status)) == "RUNNING" and all(self.replicas(name, "RUNNING") for name in PARTS)


def config_of(folder: Path, *, scaled: tuple[str, ...] = (), **args: Any) -> dict[str, Any]:
    """deployments.yaml with the g6e profile and scripted engines, one replica each.

    Those in `scaled` follow the policy and the rules of deployments.yaml, with shorter times.
    """
    config: dict[str, Any] = yaml.safe_load((REPO / "deployments.yaml").read_text())
    application = config["applications"][0]
    application["import_path"] = "tests.cluster.engines:build"
    application["args"] = {
        "profile": "g6e",
        "auth": {"mode": "open"},
        "ledger": {"url": f"sqlite:///{folder}/tierwise.db"},
        "small": {"model": {"id": MODELS["small"]}},
        "large": {"model": {"id": MODELS["large"]}},
        **args,
    }
    for deployment in application["deployments"]:
        if deployment["name"] in scaled:
            deployment["autoscaling_config"] |= {"metrics_interval_s": 0.5, "look_back_period_s": 1.5}
            deployment["user_config"]["scaling"] |= SHORT
        else:
            deployment.pop("autoscaling_config", None)
            deployment["num_replicas"] = 1
    return {"applications": [application]}


def with_options(config: dict[str, Any], **options: Mapping[str, Any]) -> dict[str, Any]:
    """Serve's own options by deployment: `SmallTier={"num_replicas": 2}`."""
    application = config["applications"][0]
    changed = [{**deployment, **options.get(deployment["name"], {})} for deployment in application["deployments"]]
    return {"applications": [{**application, "deployments": changed}]}
