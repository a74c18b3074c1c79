"""Prometheus beside a running graph: what it counts is what happened, every dashboard shows it, failing engines raise their alert."""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx
import pytest

from serve_app.observe.boards import panels
from tests.chaos.books import metric
from tests.chaos.requests import Ask, chat, mixed
from tests.chaos.stage import deploy
from tests.graph import Graph, wait_for
from tests.monitoring.prometheus import Prometheus, needs_prometheus, watching

REQUESTS = 300
COUNTED = ("ray_tierwise_decisions_total", "ray_tierwise_tokens_total", "ray_tierwise_mirror_tokens_total")


def asks() -> Iterator[Ask]:
    """Every tier by name and by score, plain and streamed; now and then the small engine fails, or the router does."""
    for number, ask in enumerate(mixed("watched")):
        yield ask
        if number % 15 == 14:
            yield chat("odd", f"small:raise hello there, thanks a lot {number}", model="small", stream=number % 2 == 1)
        if number % 50 == 49:
            yield chat("odd", f"router:raise hello there, have a nice day {number}")


async def send(graph: Graph, wanted: list[Ask], at_once: int = 8) -> list[int]:
    """The statuses, when all answers are complete."""
    places = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(base_url=graph.url, timeout=60, trust_env=False) as client:

        async def one(ask: Ask) -> int:
            async with places:
                return (await client.post(ask.path, json=ask.body)).status_code

        return await asyncio.gather(*(one(ask) for ask in wanted))


def counted(graph: Graph) -> dict[str, float]:
    """What our metrics say, and what the engines' own counters do."""
    tiers = httpx.get(f"{graph.url}/status", timeout=10, trust_env=False).json()["tiers"].values()
    engines = sum(tier["prompt_tokens"] + tier["generation_tokens"] for tier in tiers)
    return {**{name: metric(graph, name) for name in COUNTED}, "engines": float(engines)}


def grown(graph: Graph, before: dict[str, float]) -> tuple[float, float]:
    """New decisions, and by how many tokens the engines' counters and ours differ."""
    more = {name: value - before[name] for name, value in counted(graph).items()}
    return more[COUNTED[0]], more["engines"] - more[COUNTED[1]] - more[COUNTED[2]]


def without_data(prometheus: Prometheus, since: float) -> list[str]:
    """Queries of dashboards that show nothing of the run."""
    exprs = [query.expr for panel in panels() if not panel.vllm for query in panel.queries]
    assert len(exprs) > 40
    return [expr for expr in exprs if not prometheus.has_data(expr, since)]


async def raised(graph: Graph, prometheus: Prometheus, names: set[str], seconds: float) -> set[str]:
    """Let the large engine fail until the alerts fire."""
    end = time.monotonic() + seconds
    while not names <= prometheus.firing() and time.monotonic() < end:
        await send(graph, [chat("odd", f"large:raise {number}", model="large") for number in range(8)])
        await asyncio.sleep(0.5)
    return prometheus.firing()


@needs_prometheus
@pytest.mark.timeout(200)
async def test_a_real_prometheus_sees_the_run_and_failing_engines_raise_their_alert(fake: Graph, tmp_path: Path) -> None:
    deploy(fake, user_config={"mirror_share": 1.0})
    try:
        with watching(fake, tmp_path) as prometheus:
            before, began = counted(fake), time.time()
            statuses = await send(fake, list(islice(asks(), REQUESTS)))
            assert set(statuses) == {200}
            wait_for(lambda: grown(fake, before) == (REQUESTS, 0), 20, "one decision an answer, and the engines' tokens in our counters")
            await asyncio.sleep(2)  # the last report's scrape, and the rules over it
            assert without_data(prometheus, began) == []
            assert not {"TierwiseErrors", "TierwiseBreakerOpen", "TierwiseDecisionsMissing"} & prometheus.firing()
            assert prometheus.value('tierwise_cost_spend_usd_per_hour{view="fleet"}') == pytest.approx(3.6)
            expected = {"TierwiseErrors", "TierwiseBreakerOpen"}
            assert expected <= await raised(fake, prometheus, expected, 40)
    finally:
        deploy(fake, user_config={"mirror_share": 0.0})
