"""Faults of real vLLM engines under a steady stream of requests."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.chaos.judge import Answer
from tests.chaos.processes import Processes, stopped
from tests.chaos.report import Report
from tests.chaos.requests import MODELS, Ask, mixed, only, woven
from tests.chaos.scenario import Case, killed, of_receipts, of_tier, settled
from tests.chaos.stage import REAL_STALL_S, deploy
from tests.chaos.traffic import Traffic, recovery
from tests.graph import Graph

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

RATE = 3.0
DEADLINE_S = 60.0  # the endpoint's own is 40 s
LONG_S = 6.0
BACK_S = 200.0
DEPLOYMENTS = {"small": "SmallTier", "large": "LargeTier", "router": "RouterLLM"}


def asked(case: str, name: str) -> Iterator[Ask]:
    plain = mixed(name, scripted=False, max_tokens=8)
    return woven(plain, only(case, f"{name}-more", scripted=False, max_tokens=8)) if case in MODELS else plain


def rated(answer: Answer) -> bool | None:
    """A rating that is late or failed is what the router LLM's death looks like. Streams do not tell."""
    return answer.ok and answer.states[1] == "ok" if answer.part in ("easy", "hard") and answer.states[1] not in ("", "skipped") else None


@pytest.fixture
def always_rated(real: Graph) -> Iterator[None]:
    """The router LLM is asked for every prompt, so that its death shows."""
    deploy(real, user_config={"decisive_margin": 1.0})
    yield
    deploy(real, user_config={"decisive_margin": 0.2})


@pytest.mark.usefixtures("always_rated")
@pytest.mark.parametrize("case", DEPLOYMENTS)
async def test_a_killed_engine_core(real: Graph, report: Report, case: str) -> None:
    deployment = DEPLOYMENTS[case]
    normal = rated if case == "router" else of_tier(case, LONG_S)
    opened = Case.opened(real, "vllm", report, fault=f"`kill -9`, vLLM engine core of {deployment}", test="test_a_killed_engine_core")

    def find(processes: Processes) -> int:
        return processes.engine_core(deployment)

    answers, back = await killed(real, asked(case, f"core-{case}"), find, normal, rate=RATE, deadline_s=DEADLINE_S, back_s=BACK_S)
    opened.conclude(answers, back, killed=(case,) if case in MODELS else ())


async def test_a_killed_ledger_beside_real_engines(real: Graph, report: Report) -> None:
    name = "test_a_killed_ledger_beside_real_engines"
    opened = Case.opened(real, "vllm", report, fault="`kill -9`, replica of Ledger", test=name)

    def find(processes: Processes) -> int:
        return processes.first("Ledger")

    answers, back = await killed(real, asked("ledger", "ledger"), find, of_receipts, rate=RATE, deadline_s=DEADLINE_S)
    opened.conclude(answers, back)


async def test_a_stopped_engine_core(real: Graph, report: Report) -> None:
    """SIGSTOP: the process is there, its connections are open, and nothing ever comes."""
    fault_name = f"SIGSTOP, vLLM engine core of SmallTier (`stall_s: {REAL_STALL_S:.0f}`)"
    opened = Case.opened(real, "vllm", report, fault=fault_name, test="test_a_stopped_engine_core")
    processes = Processes(real)
    normal = of_tier("small", LONG_S)
    async with Traffic(real.url, asked("small", "stopped"), rate=RATE, deadline_s=DEADLINE_S) as traffic:
        await asyncio.sleep(3)
        core = await asyncio.to_thread(processes.engine_core, "SmallTier")
        fault = traffic.now()
        with stopped(core):
            await asyncio.sleep(2 * REAL_STALL_S)
            await settled(traffic, fault, normal, BACK_S)
    opened.conclude(traffic.answers, recovery(traffic.answers, fault, normal), killed=("small",))
