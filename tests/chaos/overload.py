"""More requests than the engines can answer: how many are answered all the same, and what the rest is told."""

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import psutil

from tests.chaos import prober
from tests.chaos.judge import Answer
from tests.chaos.processes import PROXY, Processes, cpu_seconds
from tests.chaos.requests import only
from tests.chaos.scenario import of_tier
from tests.chaos.traffic import Recovery, Traffic, figures, recovery
from tests.graph import Graph

CAPACITY = 16.0  # answers a second: 8 sequences of half a second each
DEADLINE_S = 40.0
WARM_S = 10.0


@dataclass(frozen=True, slots=True)
class Overload:
    """`memory` are (seconds, MiB) of ingress and proxies."""

    answers: list[Answer]
    goodput: float
    memory: list[tuple[float, float]]
    seen: dict[str, Any]
    back: Recovery
    figures: dict[str, Any]

    @property
    def refused(self) -> list[Answer]:
        return [a for a in self.answers if a.status == 429]

    @property
    def growth(self) -> tuple[float, float]:
        """(share, MiB) from the first third after the warm-up to the last third."""
        values = [mib for at, mib in self.memory if at >= WARM_S]
        third = max(1, len(values) // 3)
        first, last = sum(values[:third]) / third, sum(values[-third:]) / third
        return (last - first) / first, last - first


async def overload(graph: Graph, name: str, *, seconds: float, times: float = 4.0) -> Overload:
    processes = Processes(graph)
    watched = [*processes.replicas("Ingress"), *processes.proxies()]
    probing = prober.start(graph.url, seconds)
    memory: list[tuple[float, float]] = []
    before, idle = cpu_seconds(watched), psutil.cpu_times()
    async with Traffic(graph.url, only("large", name, order="large:crawl"), rate=times * CAPACITY, deadline_s=DEADLINE_S) as traffic:
        while traffic.now() < seconds:
            memory.append((traffic.now(), await asyncio.to_thread(processes.memory, "Ingress", PROXY)))
            await asyncio.sleep(2.0)
        ended = traffic.now()
    spent, after = cpu_seconds(watched) - before, psutil.cpu_times()
    told = await asyncio.to_thread(prober.result, probing)
    goodput = sum(a.ok and WARM_S / 2 <= a.sent + a.seconds <= ended for a in traffic.answers) / (ended - WARM_S / 2)
    told |= {"cpu_of_ingress_and_proxies": round(spent / ended, 2), "cores_idle": round((after.idle - idle.idle) / ended, 2)}
    return Overload(traffic.answers, goodput, memory, figures(traffic.answers), await calm(graph, f"{name}-after"), told)


async def calm(graph: Graph, name: str) -> Recovery:
    """Ordinary traffic, from the moment on that the last answer of the overload is back."""
    async with Traffic(graph.url, itertools.islice(only("large", name), 30), rate=5, deadline_s=DEADLINE_S) as traffic:
        await asyncio.sleep(7)
    return recovery(traffic.answers, 0.0, of_tier("large"))
