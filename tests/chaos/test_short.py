"""Short forms of the suite, for every run of the tests: one fake graph, a few faults."""

import asyncio
import math
import time

import httpx
import pytest

from tests.chaos.books import Books
from tests.chaos.hostile import some
from tests.chaos.leaving import busy, leave_at_once, until
from tests.chaos.overload import CAPACITY, overload
from tests.chaos.requests import chat, mixed
from tests.chaos.scenario import killed, of_any
from tests.chaos.siege import besiege
from tests.chaos.traffic import figures, once
from tests.graph import Graph, wait_for

pytestmark = [pytest.mark.timeout(150)]


async def test_a_killed_ingress_comes_back_and_no_request_hangs(fake: Graph) -> None:
    answers, back = await killed(fake, mixed("short-kill"), lambda processes: processes.first("Ingress"), of_any)
    seen = figures(answers)
    assert (seen["hung"], seen["wrong"]) == (0, 0), seen
    assert back.noticed, "the kill was not seen at all"
    assert math.isfinite(back.seconds), seen


async def test_an_engine_that_dies_in_the_middle_of_a_stream_is_told_and_recorded(fake: Graph) -> None:
    ask = chat("odd", "large:diemid and some more words", model="large", stream=True)
    async with httpx.AsyncClient(base_url=fake.url, timeout=httpx.Timeout(None), trust_env=False) as client:
        answer = await once(client, ask, 30.0, time.monotonic)
        assert (answer.status, answer.complete, answer.error, answer.wrong) == (200, True, "engine_error", None)
        receipt = (await client.get(f"/v1/decisions/{answer.decision_id}")).json()
    assert [(a["tier"], a["outcome"]) for a in receipt["attempts"]] == [("large", "failed")]


async def test_ten_seconds_of_four_times_the_capacity(fake: Graph) -> None:
    seen = await overload(fake, "short-four", seconds=10)
    assert seen.goodput >= 0.6 * CAPACITY, "ten seconds are mostly the filling of queues; the long form asks for 0.9"
    assert (seen.seen["hung"], seen.seen["wrong"]) == (0, 0), seen.seen
    assert {a.status for a in seen.answers if not a.ok} == {429}, seen.seen["failed"]
    assert all((a.retry_after or "").isdigit() and int(a.retry_after or 0) >= 1 for a in seen.refused)
    assert seen.back.seconds < 5.0


async def test_hostile_requests_get_no_5xx_and_no_internal_text(fake: Graph) -> None:
    seen = await besiege(fake.url, some(300, 3), at_once=8)
    assert not seen.bad, "\n".join(seen.bad)
    assert sum(seen.statuses.values()) == 300
    assert seen.statuses["200"] < 300, "none was hostile"


async def test_fifty_clients_that_leave_at_once_leave_nothing_behind(fake: Graph) -> None:
    books = Books(fake)
    before, since = books.page(), time.time()
    text = "small:endless large:endless whatever"
    bodies = [
        {"model": ("small", "large")[i % 2], "messages": [{"role": "user", "content": f"{text} {i}"}], "stream": True} for i in range(50)
    ]
    left, number = await leave_at_once(fake, bodies, after_s=3.0)
    assert number >= 40, "a bounded queue may refuse a few of so many at once"
    free = await asyncio.to_thread(until, lambda: busy(fake) == 0, left, 15)
    assert free is not None, "engines still run"
    assert free < 5.0
    wait_for(lambda: sum(books.outcomes(since).values()) == 50, 20, "a record of each")
    outcomes = books.outcomes(since)
    assert outcomes.pop("refused", 0) == 50 - number
    assert outcomes == {"cancelled": number}
    balance = books.balance(before, [])
    assert balance.even, balance
