"""Four times the capacity, for two minutes."""

import pytest

from tests.chaos.books import Books
from tests.chaos.overload import CAPACITY, overload
from tests.chaos.report import Report, client_view, seconds
from tests.chaos.scenario import told
from tests.graph import Graph

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


async def test_four_times_the_capacity(fake: Graph, report: Report) -> None:
    books = Books(fake)
    before = books.page()
    seen = await overload(fake, "four", seconds=120)
    balance = books.balance(before, seen.answers)
    share, mib = seen.growth
    client = (
        f"{client_view(seen.seen)}; {seen.goodput:.1f} answers a second of {CAPACITY:.0f} possible, the rest refused at once; "
        f"/health p99 {seen.figures['health_p99_ms']:.0f} ms, /status p99 {seen.figures['status_p99_ms']:.0f} ms"
    )
    counted = f"{told(balance, {})}; memory of ingress and proxies {mib:+.1f} MiB"
    figures = {**seen.seen, **seen.figures, "goodput": seen.goodput, "growth": share, "growth_mib": mib, "memory": seen.memory}
    name = "test_four_times_the_capacity"
    recovered = seconds(seen.back.seconds)
    report.line("4 times the capacity for 2 minutes", "fake, default", name, client=client, counted=counted, recovery=recovered, **figures)
    assert seen.goodput >= 0.9 * CAPACITY
    assert seen.seen["hung"] == seen.seen["wrong"] == 0, seen.seen
    assert {a.status for a in seen.answers if not a.ok} == {429}, seen.seen["failed"]
    assert all((a.retry_after or "").isdigit() and int(a.retry_after or 0) >= 1 for a in seen.refused)
    assert share < 0.10, seen.memory
    assert seen.back.seconds < 3.0
    assert balance.even, balance
