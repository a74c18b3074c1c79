"""The head node is lost, without a copy of its state: what goes on, and for how long."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.chaos.processes import kill
from tests.chaos.report import Report, client_view
from tests.chaos.requests import chat, mixed
from tests.chaos.traffic import Traffic, figures, once
from tests.cluster.fleet import Fleet, config_of, with_options
from tests.graph import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
RECONNECT_S = 40.0  # Ray's own default is 60
ENV = {"RAY_gcs_rpc_server_reconnect_timeout_s": str(round(RECONNECT_S))}
REPLICA_DIES_S = 27.0  # after the stream of 25 s has ended
TICKS = "large:tick " + " ".join(f"word{number}" for number in range(100))  # a word each quarter of a second


async def test_requests_and_streams_go_on_until_the_workers_give_up_waiting_for_a_head(report: Report, tmp_path: Path) -> None:
    with Fleet(everywhere=True, env=ENV) as fleet:
        url, small = started(fleet, tmp_path)
        fleet.leave()
        async with (
            Traffic(url, mixed("head"), rate=4.0, deadline_s=30.0) as traffic,
            httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(None)) as client,
        ):
            stream = asyncio.create_task(once(client, chat("large", TICKS, stream=True), 60.0, traffic.now))
            await asyncio.sleep(3.0)
            fault = traffic.now()
            fleet.lose_head()
            await asyncio.sleep(REPLICA_DIES_S)
            kill(small)
            died = traffic.now()
            gone = await traffic.until(lambda: fleet.raylets() == 0, 2 * RECONNECT_S)
            lasted = traffic.now() - fault
        whole = [answer for answer in traffic.answers if answer.sent + answer.seconds < died]
        after = [answer for answer in traffic.answers if died <= answer.sent < fault + RECONNECT_S - 3.0]
        told(report, "requests until a replica dies", figures(whole), "nothing to recover")
        told(report, "requests after the small tier's replica died: nobody replaces it", figures(after), "none without a head")
        told(report, "a stream of 25 s across the loss of the head", figures([await stream]), f"workers gave up after {lasted:.0f} s")
    assert figures(whole)["ok"] == len(whole) > 80
    assert (await stream).ok
    assert gone
    assert RECONNECT_S - 2.0 < lasted < RECONNECT_S + 15.0


def told(report: Report, what: str, seen: dict[str, object], recovery: str) -> None:
    report.line(f"the head is lost: {what}", "fleet", "workers_give_up", client=client_view(seen), counted="-", recovery=recovery, **seen)


def started(fleet: Fleet, folder: Path) -> tuple[str, int]:
    """The proxy of a worker node that answers, and the process of the small tier's replica."""
    fleet.shape(small=2, large=1)
    fleet.deploy(with_options(config_of(folder), Ingress={"num_replicas": 2, "max_replicas_per_node": 1}))
    fleet.wait_settled(120.0)
    url = fleet.urls[fleet.node_of("LargeTier").node_id]
    wait_for(lambda: answers(url), 30.0, "the proxy of a worker node")
    time.sleep(2.0)
    return url, fleet.replicas("SmallTier", "RUNNING")[0].pid


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False
