"""The ledger's deployment: one replica, one writer thread, batches, bounded."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve_app.deployments.quota_desk import QuotaDesk
from serve_app.domain import DecisionQuery, Feedback, Json, MirrorPair
from serve_app.errors import NotReady, Overloaded
from serve_app.observe.artefacts import Part
from serve_app.observe.backlog import MIB, Backlog, Forgotten, Waiting
from serve_app.observe.metrics import Metrics, RayBackend
from serve_app.observe.receipt import Row, id_of, scrubbed, shown
from serve_app.observe.store import Store
from serve_app.quotas import Row as QuotaRow
from serve_app.settings import LedgerSettings

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
RETRY_S = 1.0
SHOW_S = 1.0
READERS = 2  # pages that are read at a time
PAGES = 32  # that are read or wait: Serve hands this replica a bounded number of calls, and records need theirs
PRUNE_S = 3600.0
DAY_S = 86_400.0
REMEMBERED_S = 3600.0  # a deletion: what was on its way has come by then
CLOCKS_S = 2.0  # an ingress's clock may be ahead of this one by so much
# What passes by itself: no connection, none free in the pool, or a server that fails over and takes only reads (an InternalError).
AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)


class BatchWriter:
    """Owns the rows that are not written yet. `take` answers at once, `written` when they are in the database.

    `on_new` gets the receipts that a commit brought into the database, each once; `on_doubt` is told when a batch failed and may
    be committed all the same.
    """

    def __init__(
        self,
        store: Store,
        settings: LedgerSettings,
        on_drop: Callable[[int], None],
        on_pair: Callable[[str], None] | None = None,
        *,
        on_new: Callable[[Sequence[Json]], None] | None = None,
        on_doubt: Callable[[], None] | None = None,
    ) -> None:
        self._on_drop = on_drop
        self._on_pair = on_pair
        self._on_new = on_new
        self._on_doubt = on_doubt
        self._store = store
        self._settings = settings
        self._pending: Backlog[Row] = Backlog(settings.queue, settings.queue_mib * MIB)
        self._forgotten = Forgotten()
        self._news = asyncio.Event()
        self._wrote = asyncio.Event()  # a new one for each batch
        self._writing = asyncio.Lock()  # the last flush of a leaving replica may meet one that still runs

    async def load(self) -> None:
        """Before the first `take`: know what was deleted before this replica started."""
        for key, session, until in await asyncio.to_thread(self._store.forgotten, self._forgotten.most):
            self._forgotten.add(key, session, until)

    @asynccontextmanager
    async def between_batches(self) -> AsyncIterator[None]:
        """Nothing is committed inside."""
        async with self._writing:
            yield

    def take(self, rows: Sequence[Row]) -> None:
        """Raises `Overloaded` and keeps nothing when the batch does not fit: the sender keeps it."""
        if not self._pending.fits(rows):
            raise Overloaded("The ledger's queue is full.")
        for row in rows:
            if (kept := self._without_forgotten(row)) is not None:
                self._pending.add(kept)
        self._news.set()

    async def written(self, rows: Sequence[Row]) -> None:
        """Until none of `rows` waits any more."""
        names = [id_of(row) for row in rows]
        while any(self._pending.get(name) is not None for name in names):
            await self._wrote.wait()

    @property
    def waiting(self) -> Waiting:
        return self._pending.waiting

    def _without_forgotten(self, row: Row) -> Row | None:
        if not self._forgotten.covers(row):
            return row
        return None if isinstance(row, MirrorPair | Feedback) else scrubbed(row)

    async def get(self, decision_id: str) -> Json | None:
        pending = self._pending.get(decision_id)
        return shown(pending) if isinstance(pending, dict) else await asyncio.to_thread(self._store.get, decision_id)

    async def forget(self, key: str | None, session: str | None, now: float) -> int:
        """As `Store.forget`, also for what waits here or is still on its way, if it was made before `now` (Unix time).

        Raises `NotReady` when the database does not answer, and `ValueError` when neither key nor session is given.
        """
        if key is None and session is None:
            raise ValueError("forget needs a key or a session")
        until = now + CLOCKS_S
        self._forgotten.add(key, session, until)
        if not await self.flush():
            raise NotReady("The ledger's database does not answer.", retry_after=5.0)
        touched, steps = 0, self._store.forgetting(key, session, until)
        while (step := await self._step(steps)) is not None:
            touched += step
        return touched

    async def _step(self, steps: Iterator[int]) -> int | None:
        """The next step of a deletion; between two of them batches have their turn."""
        async with self._writing:
            try:
                return await asyncio.to_thread(next, steps, None)
            except AWAY as error:
                raise NotReady("The ledger's database does not answer.", retry_after=5.0) from error

    async def prune(self, now: float) -> None:
        """Delete what is older than the settings allow. A database that is away is asked again an hour later."""
        prompt_days, row_days = self._settings.prompt_days, self._settings.row_days
        before_rows = None if row_days is None else now - row_days * DAY_S
        async with self._writing:
            try:
                await asyncio.to_thread(self._store.prune, now - prompt_days * DAY_S, before_rows, now - REMEMBERED_S)
            except SQLAlchemyError as error:
                log.warning("old rows were not deleted: %s", type(error).__name__)

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if len(self._pending) < self._settings.batch:
                await asyncio.sleep(self._settings.flush_s)
            if not await self.flush():
                await asyncio.sleep(RETRY_S)
                self._news.set()

    async def flush(self) -> bool:
        """Write everything that waits, in batches; False when the database refused one, which then waits on."""
        while self._pending:
            async with self._writing:  # batch by batch: whoever wants to be between two of them has a turn under any load
                batch = self._pending.first(self._settings.batch, self._settings.queue_mib * MIB)
                if batch and not await self._written(batch):  # none when another flush was first
                    return False
                self._pending.remove(batch)
                self._wrote.set()
                self._wrote = asyncio.Event()
        return True

    async def _written(self, batch: Mapping[str, Row]) -> bool:
        """A database that is away is waited for; rows that it will never take are logged and let go, one by one."""
        try:
            new = await asyncio.to_thread(self._store.write, list(batch.values()))
        except AWAY as error:
            if self._on_doubt is not None:
                self._on_doubt()
            log.warning("the ledger's database is away, %d rows wait: %s", len(self._pending), type(error).__name__)
            return False
        except Exception as error:  # noqa: BLE001 - one bad row must neither stop the writer nor block the rows behind it
            if len(batch) == 1:
                self._let_go(next(iter(batch.values())), error)
                return True
            return all([await self._written({name: row}) for name, row in batch.items()])
        if self._on_new is not None:
            self._on_new(new)
        return True

    def _let_go(self, row: Row, error: Exception) -> None:
        """Pairs are counted apart: recorded and dropped records together are the requests that were answered."""
        log.error("a row was lost, %s: %s", id_of(row), type(error).__name__)
        if isinstance(row, MirrorPair):
            if self._on_pair is not None:
                self._on_pair("dropped")
        elif not isinstance(row, Feedback):
            self._on_drop(1)


class LedgerServer:
    """One replica, always: two writers would need a transaction between them."""

    async def __init__(self, settings: LedgerSettings) -> None:  # type: ignore[misc]  # Serve awaits it in the replica's loop
        url = os.environ.get(settings.url_env, settings.url) if settings.url_env else settings.url
        self._store = store = await asyncio.to_thread(Store, url)  # an older database is brought up to date first
        self._readers = asyncio.Semaphore(READERS)
        self._pages = 0
        self._metrics = metrics = Metrics(RayBackend())
        self._writer = BatchWriter(store, settings, metrics.dropped, metrics.mirrored, on_new=self._spend, on_doubt=self._doubt)
        self._quotas = QuotaDesk(store.spent_since, self._writer.between_batches)
        await self._writer.load()
        loop = asyncio.get_running_loop()
        work = {"writer": self._writer.run(), "pruning": self._prune_hourly(), "gauge": self._show_backlog()}
        self._tasks = {name: loop.create_task(endless) for name, endless in work.items()}

    async def record(self, rows: list[Row]) -> None:
        """Receipts, with prompts where they are stored, pairs of answers, and feedback. Raises `Overloaded`.

        Answers when they are committed: until then the sender keeps them, and sends them again when this replica dies.
        """
        self._writer.take(rows)
        await self._writer.written(rows)

    def _spend(self, receipts: Sequence[Json]) -> None:
        self._quotas.spend(receipts, time.time())

    def _doubt(self) -> None:
        self._quotas.doubt()

    async def sync_quotas(self, replica: str, rows: list[QuotaRow], budgeted: list[str]) -> Json:
        """One ingress replica's counts by key and minute, for all others' and for what the budgeted keys have spent this month."""
        return self._quotas.sync(replica, rows, budgeted, time.time())

    async def get(self, decision_id: str) -> Json | None:
        return await self._writer.get(decision_id)

    async def page(self, query: DecisionQuery) -> list[Json]:
        """What is written of the decisions asked for. Raises `NotReady` when many wait already."""
        return await self._read(self._store.page, query)

    async def artefact(self, name: str, start: int) -> Part | None:
        """Bytes of a calibration artefact from byte `start` on; None when there is none. Raises `NotReady` when many wait already."""
        return await self._read(self._store.artefacts.part, name, start)

    async def _read(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Few at a time, so that the writer always finds a thread."""
        if self._pages >= PAGES:
            raise NotReady("The ledger is busy.", retry_after=5.0)
        self._pages += 1
        try:
            async with self._readers:
                return await asyncio.to_thread(ask, *args, **kwargs)
        finally:
            self._pages -= 1

    async def forget(self, key: str | None, session: str | None) -> int:
        """Delete what leads back to a key or a session; the number of decisions that were changed."""
        return await self._writer.forget(key, session, time.time())

    async def check_health(self) -> None:
        """Serve replaces the replica when its writer has died."""
        for name, task in self._tasks.items():
            if task.done():
                raise RuntimeError(f"the ledger's {name} stopped") from (None if task.cancelled() else task.exception())

    async def _prune_hourly(self) -> None:
        while True:
            await self._writer.prune(time.time())
            await asyncio.sleep(PRUNE_S)

    async def _show_backlog(self) -> None:
        while True:
            self._metrics.backlog("ledger", self._writer.waiting)
            await asyncio.sleep(SHOW_S)

    async def __del__(self) -> None:
        await self._writer.flush()
