"""The g6e profile on a fleet of logical nodes: real Ray, real Serve, the profile's own bundles, scripted engines.

One fleet is brought from shape to shape, since a node takes seconds to start: the tests run in this order.
"""

import asyncio
from pathlib import Path

import pytest
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from serve_app.deployments.tier_engine import bundles
from serve_app.settings import EngineSettings, parse
from tests.chaos.requests import only
from tests.chaos.traffic import Traffic, figures
from tests.cluster.fleet import LARGE_NODE, SMALL_NODE, Fleet, config_of, with_options
from tests.graph import wait_for

pytestmark = pytest.mark.timeout(240)
PROFILE = parse({"profile": "g6e"})
REFUSED_S, GRANTED_S = 2.0, 20.0
TWO = {"num_replicas": 2, "max_replicas_per_node": 1}
PARTS = ("Ingress", "Embedder", "RouterLLM", "SmallTier", "Ledger")


def granted(settings: EngineSettings, strategy: str | None = None, seconds: float = GRANTED_S) -> bool:
    """Whether the nodes that are there have room for a replica."""
    group = placement_group(bundles(settings), strategy or settings.placement_strategy)
    try:
        return bool(group.wait(seconds))
    finally:
        remove_placement_group(group)


def refused(settings: EngineSettings) -> bool:
    return not granted(settings, seconds=REFUSED_S)


def anywhere(settings: EngineSettings) -> EngineSettings:
    """The same engine without a kind of node of its own, and with few enough CPUs for any."""
    return settings.model_copy(update={"instance": None, "num_cpus": 2.0})


def test_the_router_llm_and_the_small_tier_never_take_a_gpu_of_the_large_tiers_node(fleet: Fleet) -> None:
    fleet.shape(large=1)
    assert granted(anywhere(PROFILE.router_llm)), "it would fit there"
    assert refused(PROFILE.router_llm)
    assert refused(PROFILE.small)
    assert granted(PROFILE.large)


def test_the_large_tiers_gpus_are_never_gathered_from_several_nodes(fleet: Fleet) -> None:
    fleet.shape(small=4)
    assert granted(anywhere(PROFILE.large), "PACK"), "four GPUs are free"
    assert refused(PROFILE.large)
    assert refused(anywhere(PROFILE.large)), "STRICT_PACK alone keeps them together, too"


def test_a_tier_waits_for_its_kind_of_node_and_starts_when_one_joins(fleet: Fleet, tmp_path: Path) -> None:
    fleet.deploy(with_options(config_of(tmp_path), Ingress=TWO))
    wait_for(lambda: all(fleet.replicas(name, "RUNNING") for name in PARTS), 90, "all but the large tier")
    assert fleet.replicas("LargeTier", "RUNNING") == []
    assert {fleet.replicas(name, "RUNNING")[0].instance for name in ("RouterLLM", "SmallTier")} == {SMALL_NODE}
    node = fleet.add(LARGE_NODE)
    fleet.wait_ready(60)
    (replica,) = fleet.replicas("LargeTier", "RUNNING")
    assert (replica.instance, replica.node) == (LARGE_NODE, node.node_id)
    assert nodes_of_gpus(4) == [[node.node_id] * 4]


def nodes_of_gpus(gpus: int) -> list[list[str]]:
    """Where the bundles of every placement group with so many GPUs lie."""
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    wanted = [group for group in groups if sum(each.get("GPU", 0) for each in group["bundles"].values()) == gpus]
    return [list(group["bundles_to_node_id"].values()) for group in wanted]


async def test_the_large_tier_answers_for_a_lost_node_until_a_spare_one_has_taken_over(fleet: Fleet) -> None:
    before = fleet.replicas("SmallTier", "RUNNING")[0]
    async with Traffic(fleet.url, only("small", "lost"), rate=8.0, deadline_s=60.0) as traffic:
        await asyncio.sleep(2.0)
        fault = traffic.now()
        await asyncio.to_thread(fleet.lose, fleet.node_of("SmallTier"))

        def back() -> bool:
            return any(answer.tier == "small" for answer in traffic.answers if answer.sent > fault + 1.0)

        assert await traffic.until(back, 60.0), figures(traffic.answers)
    assert {answer.tier for answer in traffic.answers if answer.ok and answer.sent > fault} == {"small", "large"}
    after = fleet.replicas("SmallTier", "RUNNING")[0]
    assert after.instance == SMALL_NODE
    assert after.node != before.node
