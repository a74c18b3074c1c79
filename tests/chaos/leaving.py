"""Many clients that leave at once, in the middle of what they asked for."""

import asyncio
import time
from collections.abc import Callable

import httpx

from serve_app.domain import Json
from tests.chaos.requests import CHAT
from tests.graph import Graph


async def leave_at_once(graph: Graph, bodies: list[Json], *, after_s: float) -> tuple[float, int]:
    """Send all of them, leave all of them `after_s` later: when, by the monotonic clock, and how many were still there to leave."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=graph.url, timeout=httpx.Timeout(None), limits=limits, trust_env=False) as client:
        tasks = [asyncio.create_task(_read(client, body)) for body in bodies]
        await asyncio.sleep(after_s)
        left, number = time.monotonic(), sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return left, number


async def _read(client: httpx.AsyncClient, body: Json) -> None:
    async with client.stream("POST", CHAT, json=body) as answer:
        async for _ in answer.aiter_raw():
            pass


def busy(graph: Graph) -> int:
    """Requests that wait or run in both tiers, as /status says; it is a second old at most."""
    tiers = httpx.get(f"{graph.url}/status", timeout=10, trust_env=False).json()["tiers"]
    return sum(tier.get("running", 0) + tier.get("waiting", 0) for tier in tiers.values())


def until(condition: Callable[[], bool], since: float, seconds: float) -> float | None:
    """Seconds from `since` until `condition` holds, or None."""
    while time.monotonic() < since + seconds:
        if condition():
            return time.monotonic() - since
        time.sleep(0.1)
    return None
