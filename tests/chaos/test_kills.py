"""`kill -9` of each process in turn, under a steady stream of requests, on both of Serve's transports."""

import asyncio

import pytest

from tests.chaos.processes import Processes
from tests.chaos.report import Report
from tests.chaos.requests import MODELS, mixed, only, woven
from tests.chaos.scenario import Case, killed, of_any, of_receipts, of_signal, of_tier
from tests.chaos.stage import deploy
from tests.chaos.traffic import Normal
from tests.graph import Graph, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

CASES: dict[str, tuple[str, Normal, tuple[str, ...]]] = {
    "small": ("SmallTier", of_tier("small"), ("small",)),
    "large": ("LargeTier", of_tier("large"), ("large",)),
    "router": ("RouterLLM", of_signal(1), ()),
    "embedder": ("Embedder", of_signal(0), ()),
    "ledger": ("Ledger", of_receipts, ()),
    "ingress": ("Ingress", of_any, ("small", "large")),  # nobody is left to write down what was on its way
}


@pytest.mark.parametrize("case", CASES)
async def test_a_killed_replica(either: tuple[str, Graph], report: Report, case: str) -> None:
    await scenario(*either, report, case, test="test_a_killed_replica", fault=f"`kill -9`, replica of {CASES[case][0]}")


async def test_a_killed_ingress_of_two(either: tuple[str, Graph], report: Report) -> None:
    _, graph = either
    deploy(graph, ingress={"num_replicas": 2})
    wait_for(lambda: len(graph.replicas().get("Ingress", set())) == 2, 60, "the second ingress")
    await asyncio.sleep(3)
    try:
        await scenario(*either, report, "ingress", test="test_a_killed_ingress_of_two", fault="`kill -9`, one of two replicas of Ingress")
    finally:
        deploy(graph, ingress={"num_replicas": 1})
        await asyncio.sleep(10)  # the killed one's successor may be on its way, to leave again at once
        wait_for(lambda: len(graph.replicas().get("Ingress", set())) == 1, 90, "the second ingress to leave")


async def scenario(label: str, graph: Graph, report: Report, case: str, *, test: str, fault: str) -> None:
    deployment, normal, lost = CASES[case]
    name = f"{test[-3:]}-{case}-{label[-4:]}"
    opened = Case.opened(graph, label, report, fault=fault, test=test)
    asks = woven(mixed(name), only(case, f"{name}-more")) if case in MODELS else mixed(name)

    def find(processes: Processes) -> int:
        return processes.first(deployment)

    answers, back = await killed(graph, asks, find, normal)
    opened.conclude(answers, back, killed=lost)
