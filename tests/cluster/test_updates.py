"""Rolling updates, lost nodes and scaling under traffic, on the fleet with spare nodes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.report import Report, client_view
from tests.chaos.requests import MODELS, mixed, only
from tests.chaos.traffic import Traffic, figures
from tests.cluster.fleet import LARGE_NODE, PARTS, SMALL_NODE, Fleet, config_of, with_options
from tests.graph import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
RATE = 8.0
DEADLINE_S = 60.0
SURGE = {name: {"max_surge_percent": 100} for name in PARTS if name != "Ledger"}  # the ledger is the one writer
TWO = {**SURGE, "Ingress": {"max_surge_percent": 100, "num_replicas": 2, "max_replicas_per_node": 1}}


def version(folder: Path, number: int) -> dict[str, Any]:
    """A change under `args`: Serve replaces every replica of the application."""
    return config_of(folder, large={"model": {"id": MODELS["large"]}, "env": {"VERSION": str(number)}})


def ids(fleet: Fleet) -> set[str]:
    return {replica.id for replicas in fleet.everything().values() for replica in replicas}


def replaced(fleet: Fleet, old: set[str]) -> bool:
    now = fleet.everything()
    replicas = [replica for each in now.values() for replica in each]
    return (
        len(now) == len(PARTS) and all(now.values()) and all(replica.id not in old and replica.state == "RUNNING" for replica in replicas)
    )


async def rolled(fleet: Fleet, config: dict[str, Any], name: str) -> tuple[dict[str, Any], float]:
    """What clients saw while every replica was replaced, and how long that took."""
    old = await asyncio.to_thread(ids, fleet)
    assert len(old) >= len(PARTS), old
    async with Traffic(fleet.url, mixed(name), rate=RATE, deadline_s=DEADLINE_S) as traffic:
        await asyncio.sleep(3.0)
        began = traffic.now()
        await asyncio.to_thread(fleet.deploy, config)
        while not await asyncio.to_thread(replaced, fleet, old):
            assert traffic.now() - began < 120.0, "not every replica was replaced"
            await asyncio.sleep(0.5)
        took = traffic.now() - began
        await asyncio.sleep(3.0)
    return figures(traffic.answers), took


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One ledger for all of them: another one would be another change under `args`."""
    return tmp_path_factory.mktemp("ledger")


@pytest.mark.parametrize("attempt", [1, 2, 3])
async def test_every_replica_is_replaced_without_a_failed_request(fleet: Fleet, report: Report, folder: Path, attempt: int) -> None:
    fleet.shape(small=4, large=2)
    fleet.deploy(with_options(version(folder, attempt - 1), **SURGE))
    await asyncio.to_thread(fleet.wait_settled, 120.0)
    seen, took = await rolled(fleet, with_options(version(folder, attempt), **SURGE), f"surge-{attempt}")
    report.line(
        f"rolling update {attempt}, one replica each, a spare node each, max_surge_percent 100",
        "fleet",
        "replaced_without",
        client=client_view(seen),
        counted="-",
        recovery=f"replaced in {took:.0f} s",
        **seen,
    )
    assert seen["ok"] == seen["sent"], seen
    assert seen["wrong"] == 0, seen


async def test_without_a_surge_single_replicas_are_away_until_their_successors_are_ready(
    fleet: Fleet, report: Report, folder: Path
) -> None:
    fleet.shape(small=4, large=2)
    fleet.deploy(with_options(version(folder, 3), **SURGE))
    await asyncio.to_thread(fleet.wait_settled, 120.0)
    seen, took = await rolled(fleet, version(folder, 4), "gap")
    report.line(
        "the same with max_surge_percent 0, Serve's default",
        "fleet",
        "without_a_surge",
        client=client_view(seen),
        counted="-",
        recovery=f"replaced in {took:.0f} s",
        **seen,
    )
    assert seen["failed"], "a gap was expected: then the surge is not needed"
    assert set(seen["failed"]) <= {"503 not_ready", "502 engine_error"}, seen
    assert seen["hung"] == seen["wrong"] == 0, seen


async def test_a_lost_node_costs_the_streams_on_it_and_little_more(fleet: Fleet, report: Report, folder: Path) -> None:
    fleet.shape(small=4, large=2)
    fleet.deploy(with_options(version(folder, 4), **TWO))
    await asyncio.to_thread(fleet.wait_settled, 120.0)
    async with Traffic(fleet.url, only("small", "lost"), rate=RATE, deadline_s=DEADLINE_S) as traffic:
        await asyncio.sleep(3.0)
        fault, node = traffic.now(), fleet.node_of("SmallTier")
        gateway_there = node.node_id in {replica.node for replica in fleet.replicas("Ingress", "RUNNING")}
        await asyncio.to_thread(fleet.lose, node)

        def back() -> bool:
            return len([answer for answer in traffic.answers if answer.tier == "small" and answer.sent > fault + 1.0]) >= 8

        assert await traffic.until(back, 60.0)
        took = traffic.now() - fault
    seen = figures(traffic.answers)
    report.line(
        "the node of the small tier is lost, a spare one is there",
        "fleet",
        "lost_node",
        client=client_view(seen),
        counted="-",
        recovery=f"{took:.1f} s",
        **seen,
    )
    assert seen["hung"] == seen["wrong"] == 0, seen
    # A stream that had begun ends with an error event; while one tier is away, the other may refuse what would wait too long.
    allowed = {"200 engine_error", "429 overloaded"} | ({"502 engine_error", "none RemoteProtocolError"} if gateway_there else set())
    assert set(seen["failed"]) <= allowed, seen
    assert sum(seen["failed"].values()) <= 2 * RATE, seen


async def test_scaling_out_waits_for_a_node_and_scaling_in_leaves_one_replica(fleet: Fleet, folder: Path) -> None:
    fleet.shape(small=2, large=1)
    config = config_of(folder, scaled=("SmallTier",), engines={"sequences": 4, "seconds": 1.0})
    fleet.deploy(config)
    await asyncio.to_thread(fleet.wait_settled, 120.0)
    async with Traffic(fleet.url, only("small", "scale"), rate=4.5, deadline_s=DEADLINE_S) as traffic:
        assert await traffic.until(lambda: bool(fleet.replicas("SmallTier", "STARTING", "PENDING_ALLOCATION")), 60.0), (
            "no replica was added"
        )
        await asyncio.sleep(3.0)
        assert len(fleet.replicas("SmallTier", "RUNNING")) == 1, "there was no node for it"
        fleet.add(SMALL_NODE)
        assert await traffic.until(lambda: len(fleet.replicas("SmallTier", "RUNNING")) == 2, 60.0), "the node that joined was not used"
        nodes = [replica.node for replica in fleet.replicas("SmallTier", "RUNNING")]
        assert len(set(nodes)) == 2
    assert {replica.instance for replica in fleet.replicas("LargeTier", "RUNNING")} == {LARGE_NODE}
    await asyncio.to_thread(wait_for, lambda: len(fleet.replicas("SmallTier")) == 1, 60.0, "the second replica to go")
    assert figures(traffic.answers)["hung"] == 0
