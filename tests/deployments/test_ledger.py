"""The ledger's writer: batches, a bound, and rows that can be read before they are written."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve_app.deployments import ledger
from serve_app.deployments.ledger import BatchWriter
from serve_app.domain import MirrorPair
from serve_app.errors import NotReady, Overloaded
from serve_app.observe.receipt import id_of, receipt, row
from serve_app.settings import LedgerSettings
from tests.fakes import FOREVER, until
from tests.observe.common import PROMPT, pair, record


class FakeStore:
    """Keeps batches; may refuse them, or hold them until a test lets go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.rows: dict[str, Any] = {}
        self.broken = False
        self.failure: Exception = OperationalError("any", {}, Exception("disk full"))
        self.refused = 0
        self.poison: set[str] = set()
        self.dropped = 0
        self.gate = threading.Event()
        self.gate.set()
        self.pairs: list[str] = []
        self.dropped_pairs: list[str] = []
        self.forgotten: list[tuple[str | None, str | None, list[str]]] = []
        self.pruned: list[tuple[float, float | None]] = []
        self.unremembered = 0.0
        self.deletions: list[tuple[str | None, str | None, float]] = []
        self.steps = 1  # of a deletion

    def write(self, rows: list[Any]) -> list[Any]:
        assert self.gate.wait(5.0)
        if self.broken:
            self.refused += 1
            raise self.failure
        if self.poison & {id_of(item) for item in rows}:
            raise ValueError("a value that no column takes")
        self.batches.append([id_of(item) for item in rows])
        self.pairs += [item.decision_id for item in rows if isinstance(item, MirrorPair)]
        new = [item for item in rows if isinstance(item, dict) and item["id"] not in self.rows]
        self.rows.update((item["id"], item) for item in rows if isinstance(item, dict))
        return new

    def forgetting(self, key: str | None, session: str | None, until: float) -> Iterator[int]:
        for number in range(self.steps):
            assert self.gate.wait(5.0)
            if self.broken:
                raise self.failure
            if number == 0:
                self.deletions.append((key, session, until))
                self.forgotten.append((key, session, sorted(self.rows)))
            yield len(self.rows)

    def prune(self, before_prompts: float, before_rows: float | None, before_deletions: float) -> None:
        if self.broken:
            raise self.failure
        self.pruned.append((before_prompts, before_rows))
        self.unremembered = before_deletions

    def drop(self, count: int) -> None:
        self.dropped += count

    def get(self, name: str) -> Any:
        return self.rows.get(name)


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"id": name} for name in names]


def make_writer(store: FakeStore, **settings: Any) -> BatchWriter:
    return BatchWriter(
        store, LedgerSettings(**{"flush_s": 0.01, "batch": 2, "queue": 5, **settings}), store.drop, store.dropped_pairs.append
    )  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    "failure",
    [InternalError("insert", {}, Exception("cannot execute INSERT in a read-only transaction")), PoolTimeout("no connection is free")],
)
async def test_a_database_that_fails_over_keeps_the_rows(store: FakeStore, failure: Exception) -> None:
    store.broken, store.failure = True, failure
    writer = make_writer(store)
    writer.take(rows("a", "b"))
    assert not await writer.flush()
    with pytest.raises(NotReady):
        await writer._step(store.forgetting("team-a", None, 1.0))
    store.broken = False
    assert await writer.flush()
    assert (set(store.rows), store.dropped) == ({"a", "b"}, 0)


async def test_what_was_committed_is_told_once_and_only_then(store: FakeStore) -> None:
    told: list[list[str]] = []
    doubts: list[int] = []
    writer = make_writer(store)
    writer._on_new, writer._on_doubt = (lambda new: told.append([item["id"] for item in new])), (lambda: doubts.append(1))
    store.broken = True
    writer.take([*rows("a", "b"), pair("a")])
    assert not await writer.flush()
    assert (told, doubts) == ([], [1])
    store.broken, store.poison = False, {"b"}
    assert await writer.flush()
    writer.take(rows("a", "c"))
    assert await writer.flush()
    assert [name for names in told for name in names] == ["a", "c"]


async def test_between_two_batches_nothing_is_written_and_under_load_everyone_has_a_turn(store: FakeStore) -> None:
    writer = make_writer(store)
    writer.take(rows("a", "b", "c"))
    store.gate.clear()
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0.01)

    async def look() -> list[list[str]]:
        async with writer.between_batches():
            before = list(store.batches)
            await asyncio.sleep(0.02)
            assert store.batches == before
            return before

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.01)
    store.gate.set()
    assert await asyncio.gather(flushing, looking) == [True, [["a", "b"]]]
    assert store.batches == [["a", "b"], ["c"]]


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


# --- prompts and pairs


async def test_a_row_that_waits_is_shown_without_its_prompt(store: FakeStore) -> None:
    writer = make_writer(store)
    writer.take([row(record("a", prompt=PROMPT)), pair("a")])
    assert await writer.get("a") == receipt(record("a"))
    assert await writer.flush()
    assert (store.rows["a"]["prompt"], store.pairs) == (PROMPT, ["a"])


async def test_pairs_take_places_as_rows_do(store: FakeStore) -> None:
    writer = make_writer(store, queue=2)
    writer.take([row(record("a")), pair("a")])
    with pytest.raises(Overloaded):
        writer.take([pair("b")])


async def test_prompts_that_do_not_fit_are_left_with_the_sender(store: FakeStore) -> None:
    """However few they are: a queue of records alone would hold gigabytes."""
    writer = make_writer(store, queue=1000, queue_mib=8)
    large = {"prompt": "x" * 1024 * 1024}
    writer.take([row(record(f"{number}", prompt=large)) for number in range(7)])
    with pytest.raises(Overloaded):
        writer.take([row(record("8", prompt=large))])
    assert await writer.flush()
    writer.take([row(record("8", prompt=large))])


async def test_a_pair_that_the_database_never_takes_is_counted_apart(store: FakeStore) -> None:
    """Recorded and dropped records together are the requests that were answered."""
    store.poison = {"b-m"}
    writer = make_writer(store, batch=9)
    writer.take([row(record("a")), pair("b"), pair("c")])
    assert await writer.flush()
    assert (set(store.rows), store.pairs, store.dropped, store.dropped_pairs) == ({"a"}, ["c"], 0, ["dropped"])


# --- deletion


async def test_what_waits_is_written_before_it_is_forgotten(store: FakeStore) -> None:
    writer = make_writer(store)
    writer.take([row(record("a")), row(record("b"))])
    assert await writer.forget("team-a", None, 1e10) == 2
    assert store.forgotten == [("team-a", None, ["a", "b"])]


async def test_what_was_on_its_way_when_its_session_was_forgotten_does_not_bring_it_back(store: FakeStore) -> None:
    """Another ingress still had the record, and a mirror was still running."""
    writer = make_writer(store)
    await writer.forget(None, "s-1", 1_700_000_100.0)
    writer.take([row(record("a", prompt=PROMPT)), pair("a")])
    writer.take([row(record("ahead", prompt=PROMPT, created=1_700_000_101.9))])  # by its ingress's clock
    writer.take([row(record("later", prompt=PROMPT, created=1_700_000_102.1))])
    assert await writer.flush()
    assert store.rows["a"] == {**receipt(record("a")), "session": None, "prompt_hash": ""}
    assert (store.rows["later"]["session"], store.rows["later"]["prompt"]) == ("s-1", PROMPT)
    assert (store.rows["ahead"]["session"], "prompt" in store.rows["ahead"]) == (None, False)
    assert store.pairs == []


async def test_a_database_that_is_away_says_so_to_who_wants_to_be_forgotten(store: FakeStore) -> None:
    writer = make_writer(store)
    store.broken = True
    with pytest.raises(NotReady):  # found out by the deletion itself
        await writer.forget("team-a", None, 1e10)
    writer.take([row(record("a"))])
    with pytest.raises(NotReady):  # found out by what waited
        await writer.forget("team-a", None, 1e10)


async def test_a_deletion_waits_for_the_batch_that_is_being_written(store: FakeStore) -> None:
    writer = make_writer(store)
    writer.take(rows("a"))
    store.gate.clear()
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0.01)
    forgetting = asyncio.create_task(writer.forget("team-a", None, 1e10))
    await asyncio.sleep(0.01)
    assert store.forgotten == []
    store.gate.set()
    assert await asyncio.gather(flushing, forgetting) == [True, 1]


async def test_batches_are_written_between_the_steps_of_a_long_deletion(store: FakeStore, running: BatchWriter) -> None:
    store.steps = 1_000_000
    forgetting = asyncio.create_task(running.forget("team-a", None, 1e10))
    await until(lambda: store.forgotten)
    running.take(rows("a"))
    await until(lambda: "a" in store.rows)
    assert not forgetting.done()
    store.broken = True
    with pytest.raises(NotReady):
        await forgetting


async def test_forgetting_nobody_is_a_mistake(store: FakeStore) -> None:
    with pytest.raises(ValueError, match="a key or a session"):
        await make_writer(store).forget(None, None, 1e10)


# --- retention


async def test_age_is_counted_in_days(store: FakeStore) -> None:
    now = 1_700_000_000.0
    await make_writer(store).prune(now)
    await make_writer(store, prompt_days=1, row_days=2).prune(now)
    assert store.pruned == [(now - 30 * 86_400, None), (now - 86_400, now - 2 * 86_400)]
    assert store.unremembered == now - 3600


async def test_a_database_that_is_away_is_pruned_another_time(store: FakeStore) -> None:
    writer = make_writer(store)
    store.broken = True
    await writer.prune(1e10)
    store.broken = False
    await writer.prune(1e10)
    assert len(store.pruned) == 1
