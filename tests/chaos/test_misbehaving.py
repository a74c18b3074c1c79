"""Engines that hang, crawl, die in the middle or talk nonsense: what a client gets, and how soon."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.chaos.books import Books
from tests.chaos.judge import Answer
from tests.chaos.report import Report, client_view, seconds
from tests.chaos.requests import chat, mixed
from tests.chaos.scenario import counts, of_any, told
from tests.chaos.traffic import Traffic, figures, once, recovery
from tests.graph import Graph

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

ODD = 3  # few enough to leave the breaker closed and the retry budget unspent
DEADLINE_S = 40.0  # the endpoint's own is 20 s


async def ordered(graph: Graph, order: str, number: int, *, stream: bool, model: str) -> list[Answer]:
    """`number` requests that make an engine misbehave, at the same time."""
    asks = [chat("odd", f"{order} number {i} of some words that follow", model=model, stream=stream) for i in range(number)]
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=graph.url, timeout=httpx.Timeout(None), trust_env=False) as client:
        started = loop.time()
        return list(await asyncio.gather(*(once(client, ask, DEADLINE_S, lambda: loop.time() - started) for ask in asks)))


FALLS_BACK = {
    "small:hang": "the small tier hangs before its first byte",
    "small:slow": "the small tier takes 3 s to its first byte",
    "small:raise": "the small tier breaks before its first byte",
}
ENDS = {
    "small:hangmid": "an engine hangs in the middle of a stream",
    "large:raisemid": "an engine breaks in the middle of a stream",
    "large:diemid": "an engine's process dies in the middle of a stream",
    "small:short": "an engine's stream ends without an end",
}


@pytest.mark.parametrize("order", FALLS_BACK)
async def test_before_the_first_byte(either: tuple[str, Graph], report: Report, order: str) -> None:
    """A stream is answered all the same, by the large tier where the small one does not come."""
    answers, line = await beside_traffic(either, report, order, FALLS_BACK[order], test="test_before_the_first_byte", model="small")
    assert all(a.ok for a in answers), [a.kind_of_failure for a in answers]
    assert {a.tier for a in answers} == ({"small"} if order == "small:slow" else {"large"})
    assert line["hung"] == line["wrong"] == 0, line


@pytest.mark.parametrize("order", ENDS)
async def test_after_the_first_byte(either: tuple[str, Graph], report: Report, order: str) -> None:
    """A stream ends with an error event and [DONE]: never silently, and never with another tier's words."""
    model = order.split(":", maxsplit=1)[0]
    answers, line = await beside_traffic(either, report, order, ENDS[order], test="test_after_the_first_byte", model=model)
    assert all(a.status == 200 and a.complete and a.error for a in answers), [(a.kind_of_failure, a.complete) for a in answers]
    assert {a.tier for a in answers} == {model}
    assert line["hung"] == line["wrong"] == 0, line


async def test_garbage_between_the_chunks(either: tuple[str, Graph], report: Report) -> None:
    fault = "an engine puts garbage between the chunks of a stream"
    answers, line = await beside_traffic(either, report, "large:garbage", fault, test="test_garbage_between_the_chunks", model="large")
    assert all(a.ok for a in answers), [a.kind_of_failure for a in answers]
    assert line["hung"] == line["wrong"] == 0, line
    assert line["skipped_chunks"] > 0


async def beside_traffic(
    either: tuple[str, Graph], report: Report, order: str, fault: str, *, test: str, model: str
) -> tuple[list[Answer], dict[str, Any]]:
    """A few misbehaving requests beside a steady stream of others, until those are as before."""
    label, graph = either
    books = Books(graph)
    before, counted = books.page(), counts(graph)
    async with Traffic(graph.url, mixed(f"{order.replace(':', '-')}-{label[-4:]}"), rate=4, deadline_s=DEADLINE_S) as traffic:
        await asyncio.sleep(1)
        at = traffic.now()
        odd = await ordered(graph, order, ODD, stream=True, model=model)
        took = traffic.now() - at
        await asyncio.sleep(4)
        if order.endswith("diemid"):
            await traffic.until(lambda: recovery(traffic.answers, at, of_any).seconds < took + 60, 60)
    seen, others = figures(odd), figures(traffic.answers)
    balance = books.balance(before, [*odd, *traffic.answers], killed=("large",) if order.endswith("diemid") else ())
    more = {name: value - counted[name] for name, value in counts(graph).items()}
    back = recovery(traffic.answers, at, of_any)
    client = f"{client_view(seen)}, after {seen['longest_s']:.1f} s at most; beside it {client_view(others)}"
    extra = {"others": others, "off": balance.off, "missing": len(balance.missing)}
    report.line(fault, label, test, client=client, counted=told(balance, more), recovery=seconds(back.seconds), **seen, **more, **extra)
    assert others["hung"] == others["wrong"] == 0, others
    assert balance.even, balance
    return odd, {**seen, **more}
