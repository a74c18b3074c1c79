"""The book of quotas beside a blocking database: nobody waits for it, an answer tells what is known."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from serve_app.domain import Json
from serve_app.quotas import QuotaBook, Row

log = logging.getLogger(__name__)
SpentSince = Callable[[list[str], float], Mapping[str, float]]
BetweenBatches = Callable[[], AbstractAsyncContextManager[None]]


class QuotaDesk:
    """Owns a `QuotaBook` and the one query that reads what was spent before; `spent_since` blocks and runs in a thread.

    Nothing is committed inside `between_batches()`: a record is either in the sum or counted after it.
    """

    def __init__(self, spent_since: SpentSince, between_batches: BetweenBatches) -> None:
        self._spent_since = spent_since
        self._between_batches = between_batches
        self._book = QuotaBook()
        self._reading: asyncio.Task[None] | None = None

    def spend(self, receipts: Iterable[Json], now: float) -> None:
        """Count the dollars of records that were committed now."""
        self._book.spend(receipts, now)

    def doubt(self) -> None:
        """What was committed is not sure any more: the sums are read again."""
        self._book.doubt()

    def sync(self, replica: str, rows: Sequence[Row], budgeted: Sequence[str], now: float) -> Json:
        """Take a replica's totals; answer the others', and the month's dollars of `budgeted` keys as far as they are known."""
        others = self._book.exchange(replica, rows, now)
        unread = self._book.unread(budgeted, now)
        if unread and (self._reading is None or self._reading.done()):
            self._reading = asyncio.get_running_loop().create_task(self._read(unread, self._book.month))
        return {"others": others, "month": self._book.month, "spent": self._book.spent(budgeted)}

    async def _read(self, keys: list[str], month: float) -> None:
        try:
            async with self._between_batches():
                self._book.read(await asyncio.to_thread(self._spent_since, keys, month), keys, month)
        except Exception as error:  # noqa: BLE001 - the database may be away in any way; the next exchange asks again
            log.warning("what %d keys have spent could not be read: %s", len(keys), type(error).__name__)
