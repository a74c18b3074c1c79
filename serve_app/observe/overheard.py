"""Records on their way into the ledger, heard by others: quotas and the request's log line."""

from collections.abc import Callable
from typing import Any

from serve_app.domain import MirrorPair, Record
from serve_app.ports import Ledger


class Overheard:
    """A ledger that tells `listeners` of every record first. They never block and never raise."""

    def __init__(self, ledger: Ledger, *listeners: Callable[[Record], None]) -> None:
        self._ledger = ledger
        self._listeners = listeners

    def record(self, record: Record) -> None:
        for listener in self._listeners:
            listener(record)
        self._ledger.record(record)

    def mirrored(self, pair: MirrorPair) -> None:
        self._ledger.mirrored(pair)

    async def get(self, decision_id: str) -> dict[str, Any] | None:
        return await self._ledger.get(decision_id)

    async def forget(self, key: str | None, session: str | None) -> int:
        return await self._ledger.forget(key, session)
