"""The ledger's writer: batches, a bound, and rows that can be read before they are written."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from serve_app.deployments import ledger
from serve_app.deployments.ledger import BatchWriter
from serve_app.errors import Overloaded
from serve_app.settings import LedgerSettings
from tests.fakes import FOREVER, until


class FakeStore:
    """Keeps batches; may refuse them, or hold them until a test lets go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.rows: dict[str, Any] = {}
        self.broken = False
        self.refused = 0
        self.poison: set[str] = set()
        self.dropped = 0
        self.gate = threading.Event()
        self.gate.set()

    def write(self, receipts: list[Any]) -> None:
        assert self.gate.wait(5.0)
        if self.broken:
            self.refused += 1
            raise OperationalError("insert", {}, Exception("disk full"))
        if self.poison & {item["id"] for item in receipts}:
            raise ValueError("a value that no column takes")
        self.batches.append([item["id"] for item in receipts])
        self.rows.update((item["id"], item) for item in receipts)

    def drop(self, count: int) -> None:
        self.dropped += count

    def get(self, name: str) -> Any:
        return self.rows.get(name)


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"id": name} for name in names]


def make_writer(store: FakeStore, **settings: Any) -> BatchWriter:
    return BatchWriter(store, LedgerSettings(**{"flush_s": 0.01, "batch": 2, "queue": 5, **settings}), store.drop)  # type: ignore[arg-type]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def running(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchWriter]:
    monkeypatch.setattr(ledger, "RETRY_S", 0.01)
    writer = make_writer(store)
    task = asyncio.create_task(writer.run())
    yield writer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_rows_are_written_in_batches(store: FakeStore, running: BatchWriter) -> None:
    running.take(rows("a", "b", "c"))
    await until(lambda: len(store.rows) == 3)
    assert store.batches == [["a", "b"], ["c"]]


async def test_a_full_batch_does_not_wait(store: FakeStore) -> None:
    writer = make_writer(store, flush_s=FOREVER)
    task = asyncio.create_task(writer.run())
    writer.take(rows("a", "b"))
    await until(lambda: store.batches)
    task.cancel()


async def test_rows_wait_for_company_but_not_long(store: FakeStore, running: BatchWriter) -> None:
    running.take(rows("a"))
    assert store.batches == []
    running.take(rows("b"))
    await until(lambda: store.batches)
    assert store.batches == [["a", "b"]]


async def test_a_row_can_be_read_before_and_after_it_is_written(store: FakeStore, running: BatchWriter) -> None:
    running.take(rows("a"))
    assert await running.get("a") == {"id": "a"}
    assert store.rows == {}
    await until(lambda: store.rows)
    assert await running.get("a") == {"id": "a"}
    assert await running.get("b") is None


async def test_a_database_that_fails_keeps_the_rows(store: FakeStore, running: BatchWriter) -> None:
    store.broken = True
    running.take(rows("a", "b", "c"))
    await until(lambda: store.refused >= 2)
    assert await running.get("c") == {"id": "c"}
    store.broken = False
    await until(lambda: len(store.rows) == 3)


async def test_what_does_not_fit_is_left_with_the_sender(store: FakeStore) -> None:
    writer = make_writer(store)
    writer.take(rows("a", "b", "c", "d"))
    with pytest.raises(Overloaded):
        writer.take(rows("e", "f"))
    assert await writer.get("e") is None
    writer.take(rows("e"))
    assert await writer.flush()
    assert sorted(store.rows) == ["a", "b", "c", "d", "e"]


async def test_the_same_row_sent_twice_is_written_once(store: FakeStore) -> None:
    writer = make_writer(store)
    writer.take(rows("a"))
    writer.take(rows("a"))
    assert await writer.flush()
    assert store.batches == [["a"]]


async def test_rows_that_come_while_one_batch_is_written_are_not_lost(store: FakeStore, running: BatchWriter) -> None:
    store.gate.clear()
    running.take(rows("a", "b"))
    await asyncio.sleep(0.03)
    running.take(rows("c"))
    store.gate.set()
    await until(lambda: len(store.rows) == 3)


async def test_two_flushes_at_once_write_every_row_once(store: FakeStore) -> None:
    """A replica that leaves flushes while its writer still runs."""
    writer = make_writer(store)
    writer.take(rows("a", "b", "c"))
    assert await asyncio.gather(writer.flush(), writer.flush()) == [True, True]
    assert store.batches == [["a", "b"], ["c"]]


async def test_a_row_that_the_database_never_takes_is_counted_and_does_not_block_the_others(store: FakeStore) -> None:
    store.poison = {"b"}
    writer = make_writer(store, batch=3)
    writer.take(rows("a", "b", "c"))
    assert await writer.flush()
    assert set(store.rows) == {"a", "c"}
    assert store.dropped == 1
