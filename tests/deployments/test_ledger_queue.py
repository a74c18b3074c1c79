"""The ingress's queue of records before the ledger: nothing waits for it, nothing is lost in silence."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import clients
from serve_app.deployments.clients import HandleLedger
from serve_app.domain import Decision, Outcome, Reason, Record, Tier
from serve_app.errors import NotReady
from tests.fakes import soon, until


def record(name: str) -> Record:
    decision = Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65)
    return Record(name, 1.0, "chat", False, decision, Outcome.OK, (), 0.0, 0.0, 0.0, 0.0, "hash", 5)


class Ledger:
    """The other side: keeps batches; `broken` makes it refuse them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.broken: Exception | None = None
        self.stored: dict[str, Any] = {}
        self.asked = 0

    async def record(self, receipts: list[Any]) -> None:
        self.asked += 1
        if self.broken is not None:
            raise self.broken
        self.batches.append([item["id"] for item in receipts])

    async def get(self, name: str) -> Any:
        if self.broken is not None:
            raise self.broken
        return self.stored.get(name)


def handle_over(ledger: Ledger) -> Any:
    return SimpleNamespace(record=SimpleNamespace(remote=ledger.record), get=SimpleNamespace(remote=ledger.get))


class Queue:
    """A `HandleLedger` before a `Ledger`, and what it dropped."""

    def __init__(self, queue: int = 100, batch: int = 10) -> None:
        self.ledger = Ledger()
        self.dropped = 0
        self.client = HandleLedger(handle_over(self.ledger), queue=queue, batch=batch, on_drop=self.drop)

    def drop(self, count: int) -> None:
        self.dropped += count

    def fill(self, *names: str) -> None:
        for name in names:
            self.client.record(record(name))


@pytest.fixture
async def queue(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queue]:
    monkeypatch.setattr(clients, "RETRY_S", 0.01)
    one = Queue()
    running = asyncio.create_task(one.client.run())
    yield one
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_records_arrive_in_order_and_in_batches(queue: Queue) -> None:
    names = [f"tw-{i}" for i in range(25)]
    queue.fill(*names)
    await until(lambda: sum(map(len, queue.ledger.batches)) == 25)
    assert [name for batch in queue.ledger.batches for name in batch] == names
    assert max(map(len, queue.ledger.batches)) == 10


async def test_a_ledger_that_was_down_gets_every_record_once(queue: Queue) -> None:
    queue.ledger.broken = RuntimeError("restarting")
    queue.fill("tw-1", "tw-2")
    await until(lambda: queue.ledger.asked >= 2)
    queue.ledger.broken = None
    await until(lambda: queue.ledger.batches)
    queue.fill("tw-3")
    await until(lambda: len(queue.ledger.batches) == 2)
    assert queue.ledger.batches == [["tw-1", "tw-2"], ["tw-3"]]
    assert queue.dropped == 0


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    full = Queue(queue=3)
    full.fill("tw-1", "tw-2", "tw-3", "tw-4", "tw-5")
    assert full.dropped == 2
    running = asyncio.create_task(full.client.run())
    await until(lambda: full.ledger.batches)
    running.cancel()
    assert full.ledger.batches == [["tw-1", "tw-2", "tw-3"]]


async def test_a_record_that_still_waits_can_be_read() -> None:
    waiting = Queue()
    waiting.fill("tw-1")
    found = await waiting.client.get("tw-1")
    assert found is not None
    assert (found["id"], found["outcome"], found["decision"]["tier"]) == ("tw-1", "ok", "small")


async def test_a_record_that_was_sent_is_read_from_the_ledger(queue: Queue) -> None:
    queue.ledger.stored["tw-9"] = {"id": "tw-9"}
    assert await queue.client.get("tw-9") == {"id": "tw-9"}
    assert await queue.client.get("tw-0") is None


async def test_a_ledger_that_is_down_is_told_as_such(queue: Queue) -> None:
    queue.ledger.broken = RuntimeError("secret")
    with pytest.raises(NotReady, match="ledger does not answer"):
        await soon(queue.client.get("tw-9"))
