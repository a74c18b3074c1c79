"""Ten thousand malformed and hostile requests: nothing breaks, nothing leaks, nothing grows."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.chaos.hostile import Hostile, changed, some
from tests.chaos.processes import PROXY, Processes
from tests.chaos.report import Report
from tests.chaos.siege import Siege, besiege, raw
from tests.graph import Graph

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(700)]


def from_schema(graph: Graph, each: int, variants: int) -> Iterator[Hostile]:
    from tests.chaos.schema_cases import cases  # schemathesis takes a second to import

    document = httpx.get(f"{graph.url}/openapi.json", timeout=30, trust_env=False).json()
    for number, case in enumerate(cases(document, each)):
        yield from changed(case, variants, number)


async def siege(graph: Graph, label: str, report: Report, total: int, *, each: int, at_once: int, name: str) -> None:
    processes, replicas = Processes(graph), graph.replicas()
    made = list(from_schema(graph, each, 12))
    own = total - len(made) - 100
    started = time.monotonic()
    seen = await besiege(graph.url, made, at_once=at_once)
    seen.add(await besiege(graph.url, some(own // 2, 1), at_once=at_once))
    before = processes.memory("Ingress", PROXY)  # what is made once, and kept up to its bound, is there by now
    seen.add(await besiege(graph.url, some(own - own // 2, 2), at_once=at_once))
    seen.add(await raw(graph.url, 100))
    took = time.monotonic() - started
    await asyncio.sleep(3)
    grown = processes.memory("Ingress", PROXY) - before
    statuses = ", ".join(f"{number} x {status}" for status, number in seen.statuses.most_common())
    counted = f"memory of ingress and proxies {grown:+.1f} MiB of {before:.0f} in the second half; {seen.offences} answers with a fault"
    line = {"client": f"{total} requests in {took:.0f} s: {statuses}", "counted": counted, "recovery": "none needed"}
    figures = {"kinds": seen.kinds, "grown_mib": grown, "bad": seen.bad, "from_schema": len(made)}
    report.line(f"{total:,} malformed or hostile requests", label, name, **line, **figures)
    await faultless(graph, seen)
    assert grown < 0.1 * before, f"{before:.0f} MiB grew by {grown:.1f}"
    assert graph.replicas() == replicas


async def faultless(graph: Graph, seen: Siege) -> None:
    assert not seen.bad, "\n".join(seen.bad)
    body = {"model": "large", "messages": [{"role": "user", "content": "still there?"}], "max_tokens": 3}
    answer = await asyncio.to_thread(httpx.post, f"{graph.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text


async def test_ten_thousand_hostile_requests(fake: Graph, report: Report) -> None:
    await siege(fake, "fake, default", report, 10_000, each=12, at_once=16, name="test_ten_thousand_hostile_requests")


async def test_hostile_requests_and_real_engines(real: Graph, report: Report) -> None:
    await siege(real, "vllm", report, 500, each=1, at_once=4, name="test_hostile_requests_and_real_engines")
