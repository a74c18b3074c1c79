"""200 clients leave at once and leave nothing behind."""

import asyncio
import time

import pytest

from tests.chaos.books import Books
from tests.chaos.leaving import busy, leave_at_once, until
from tests.chaos.report import Report
from tests.chaos.scenario import told
from tests.graph import Graph, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

CLIENTS = 200
SEEN_S = 3.0  # /status is a second old at most, and the cores are busy with 200 disconnects


async def leave(graph: Graph, label: str, report: Report, text: str, **options: object) -> None:
    books = Books(graph)
    before = books.page()
    since = time.time()
    tiers = ("small", "large")
    bodies = [
        {
            "model": tiers[i % 2],
            "messages": [{"role": "user", "content": f"{text} {i}"}],
            "stream": i % 4 < 2,
            "max_tokens": 1000,
            **options,
        }
        for i in range(CLIENTS)
    ]
    left, number = await leave_at_once(graph, bodies, after_s=5.0)
    free = await asyncio.to_thread(until, lambda: busy(graph) == 0, left, 30)
    await asyncio.to_thread(wait_for, lambda: sum(books.outcomes(since).values()) >= number, 20, "a record of each")
    outcomes = books.outcomes(since)
    balance = books.balance(before, [])
    client = f"{number} of {CLIENTS} clients left, half of them streams; every engine at 0 running, 0 waiting"
    counted = f"records: {', '.join(f'{number} {name}' for name, number in outcomes.items())}; {told(balance, {})}"
    recovery = f"{free:.1f} s as /status sees it" if free is not None else "not within the test"
    line = {"client": client, "counted": counted, "recovery": recovery}
    name = "test_200_clients_leave_at_once" + ("_the_real_engines" if label == "vllm" else "")
    report.line("200 clients leave at once", label, name, **line, free_s=free, outcomes=outcomes, off=balance.off)
    assert free is not None, "engines still run"
    assert free < 2.0 + SEEN_S
    assert set(outcomes) <= {"cancelled", "ok", "refused"}, outcomes  # a bounded queue may refuse some of so many at once
    assert outcomes["cancelled"] >= 0.9 * number, "more than the few whose answer came at that very moment"
    assert number > CLIENTS / 2, "too many had their answer already"
    assert balance.even, balance


async def test_200_clients_leave_at_once(either: tuple[str, Graph], report: Report) -> None:
    label, graph = either
    await leave(graph, label, report, "small:endless large:endless whatever you like")


async def test_200_clients_leave_at_once_the_real_engines(real: Graph, report: Report) -> None:
    await leave(real, "vllm", report, "tell me a long story about the sea and the number", ignore_eos=True)
