"""Where a cluster's nodes would hold the graph: the graph's own reservations, and Ray's own autoscaler to place them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest
from ray.serve import Application

from serve_app.app import build
from tests.cluster_files.sync import DEPLOYMENTS, for_a_cluster

ENGINES = {"RouterLLM", "SmallTier", "LargeTier"}
Resources = Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """One deployment: what a replica asks for (one bundle where it needs no placement group), and how many there may be."""

    name: str
    bundles: tuple[Resources, ...]
    fewest: int
    most: int

    @property
    def together(self) -> dict[str, float]:
        """What one node must have free for a replica: STRICT_PACK keeps its bundles on one."""
        return {key: sum(bundle.get(key, 0) for bundle in self.bundles) for bundle in self.bundles for key in bundle}


@dataclass(frozen=True)
class Nodes:
    """One node type of a cluster's file."""

    name: str
    resources: Resources
    fewest: int
    most: int
    priority: int = 0


def cluster_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(for_a_cluster(DEPLOYMENTS.read_text(encoding="utf-8")))
    return config


def graph(config: dict[str, Any]) -> list[Part]:
    """The deployments of the application as it is built, with the numbers of replicas that its file allows."""
    application = config["applications"][0]
    scales = {deployment["name"]: deployment for deployment in application["deployments"]}
    return [_part(deployment, scales[deployment.name]) for deployment in _deployments(build(application["args"]))]


def _part(deployment: Any, scale: Mapping[str, Any]) -> Part:
    options = deployment._deployment_config, deployment._replica_config
    bundles = options[1].placement_group_bundles or [{"CPU": options[1].ray_actor_options["num_cpus"]}]
    scaling = scale.get("autoscaling_config", {})
    fixed = scale.get("num_replicas", 1)
    # A tier that may go to zero still comes back.
    return Part(deployment.name, tuple(bundles), max(1, scaling.get("min_replicas", fixed)), scaling.get("max_replicas", fixed))


def _deployments(application: Application) -> Iterator[Any]:
    deployment = application._bound_deployment
    yield deployment
    for value in deployment.init_kwargs.values():
        if isinstance(value, Application):
            yield from _deployments(value)


def wanted(nodes: list[Nodes], demands: list[Part]) -> dict[str, int]:
    """How many of each type Ray's autoscaler would start, from none, for one replica of each of `demands`.

    Raises AssertionError when there is one that no node could ever hold.
    """
    gangs = [GangResourceRequest(requests=[ResourceRequestUtil.make(part.together)]) for part in demands if part.name in ENGINES]
    singles = [ResourceRequestUtil.make(dict(part.bundles[0])) for part in demands if part.name not in ENGINES]
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs={
                node.name: NodeTypeConfig(
                    name=node.name,
                    min_worker_nodes=node.fewest,
                    max_worker_nodes=node.most,
                    priority=node.priority,
                    resources=dict(node.resources),
                )
                for node in nodes
            },
            gang_resource_requests=gangs,
            resource_requests=ResourceRequestUtil.group_by_count(singles),
        )
    )
    assert not reply.infeasible_gang_resource_requests, reply.infeasible_gang_resource_requests
    assert not reply.infeasible_resource_requests, reply.infeasible_resource_requests
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def at(parts: list[Part], what: str) -> list[Part]:
    """Every replica once, at the `fewest` or the `most`."""
    return [part for part in parts for _ in range(getattr(part, what))]


def blocked(parts: list[Part], node: Nodes) -> int:
    """How many nodes of this type the parts without a GPU could fill, at their most, so that no engine of one GPU fits any more.

    The worst that can happen: they all come before the engines, and each lands where it hurts most.
    """
    engine = max(part.together["CPU"] for part in parts if part.together.get("GPU") == 1)
    light = sorted((part.together["CPU"] for part in at(parts, "most") if part.name not in ENGINES), reverse=True)
    filled = 0
    while light:
        used = 0.0
        while light and node.resources["CPU"] - used >= engine:
            # The smallest that does it wastes least; otherwise the largest.
            enough = [cpus for cpus in light if node.resources["CPU"] - used - cpus < engine]
            used += light.pop(light.index(min(enough))) if enough else light.pop(0)
        filled += node.resources["CPU"] - used < engine
    return filled
