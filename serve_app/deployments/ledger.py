"""The ledger's deployment: one replica, one writer thread, batches, bounded."""

import asyncio
import logging
import os
from collections.abc import Callable
from itertools import islice

from sqlalchemy.exc import InterfaceError, OperationalError

from serve_app.domain import Json
from serve_app.errors import Overloaded
from serve_app.observe.metrics import Metrics, RayBackend
from serve_app.observe.store import Store
from serve_app.settings import LedgerSettings

log = logging.getLogger(__name__)
RETRY_S = 1.0


class BatchWriter:
    """Owns the rows that are not written yet. `take` answers at once; a failing database keeps them, up to the bound."""

    def __init__(self, store: Store, settings: LedgerSettings, on_drop: Callable[[int], None]) -> None:
        self._on_drop = on_drop
        self._store = store
        self._settings = settings
        self._pending: dict[str, Json] = {}
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()  # the last flush of a leaving replica may meet one that still runs

    def take(self, receipts: list[Json]) -> None:
        """Raises `Overloaded` and keeps nothing when the batch does not fit: the sender keeps it."""
        if len(self._pending) + len(receipts) > self._settings.queue:
            raise Overloaded("The ledger's queue is full.")
        self._pending.update((receipt["id"], receipt) for receipt in receipts)
        self._news.set()

    async def get(self, decision_id: str) -> Json | None:
        pending = self._pending.get(decision_id)
        return pending if pending is not None else await asyncio.to_thread(self._store.get, decision_id)

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
        async with self._writing:
            while self._pending:
                batch = list(islice(self._pending.values(), self._settings.batch))
                if not await self._written(batch):
                    return False
                for receipt in batch:
                    del self._pending[receipt["id"]]
        return True

    async def _written(self, batch: list[Json]) -> bool:
        """A database that is away is waited for; rows that it will never take are logged and let go, one by one."""
        try:
            await asyncio.to_thread(self._store.write, batch)
        except (OperationalError, InterfaceError) as error:
            log.warning("the ledger's database is away, %d rows wait: %s", len(self._pending), type(error).__name__)
            return False
        except Exception as error:  # noqa: BLE001 - one bad row must neither stop the writer nor block the rows behind it
            if len(batch) == 1:
                log.error("a row was lost, %s: %s", batch[0].get("id"), type(error).__name__)
                self._on_drop(1)
                return True
            return all([await self._written([receipt]) for receipt in batch])
        return True


class LedgerServer:
    """One replica, always: two writers would need a transaction between them."""

    async def __init__(self, settings: LedgerSettings) -> None:  # type: ignore[misc]  # Serve awaits it in the replica's loop
        url = os.environ.get(settings.url_env, settings.url) if settings.url_env else settings.url
        self._writer = BatchWriter(Store(url), settings, Metrics(RayBackend()).dropped)
        self._running = asyncio.get_running_loop().create_task(self._writer.run())

    async def record(self, receipts: list[Json]) -> None:
        self._writer.take(receipts)

    async def get(self, decision_id: str) -> Json | None:
        return await self._writer.get(decision_id)

    async def check_health(self) -> None:
        """Serve replaces the replica when its writer has died."""
        if self._running.done():
            raise RuntimeError("the ledger's writer stopped") from self._running.exception()

    async def __del__(self) -> None:
        await self._writer.flush()
