"""From what a request gathered to its record: costs, metrics, and exact usage of what was cut off.

`listeners` are told of every record that is final; they must neither wait nor raise.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from serve_app.domain import Attempt, Json, Outcome, Record, Tier
from serve_app.observe import cost
from serve_app.observe.receipt import receipt
from serve_app.ports import Clock, Engines, Ledger, Observer
from serve_app.settings import TokenPrice
from serve_app.trip import Trip

CUT_OFF = (Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.ESCALATED)  # we stopped it: the last chunk that came may not be the last one made


class Recorder:
    """Owns the records of requests whose engine has not yet said what a generation that was cut off had used.

    There are never more of them than requests ended within the few seconds that `Engine.settled` waits at most.
    """

    def __init__(
        self,
        *,
        engines: Engines,
        prices: Mapping[Tier, TokenPrice],
        ledger: Ledger,
        observer: Observer,
        clock: Clock,
        fingerprint: Callable[[str], str],
        listeners: Sequence[Callable[[Record], None]] = (),
        store_prompts: bool = False,
    ) -> None:
        self._engines = engines
        self._prices = prices
        self._ledger = ledger
        self._observer = observer
        self._clock = clock
        self._fingerprint = fingerprint
        self._listeners = listeners
        self._store_prompts = store_prompts
        self._open: dict[str, Record] = {}
        self._settling: set[asyncio.Task[None]] = set()

    def end_attempt(self, trip: Trip, outcome: Outcome, error: str | None = None, *, complete: bool = False) -> None:
        """`complete`: the engine itself ended the generation, so that its last count is exact."""
        trip.attempt = self._priced(trip.attempt)
        cut_off = outcome in CUT_OFF and not complete
        trip.end_attempt(outcome, self._clock.monotonic() - trip.started, error, cut_off=cut_off)

    def finish(self, trip: Trip, outcome: Outcome) -> Record:
        """The record as it is known now; the ledger's is exact where a generation was cut off, and comes a little later."""
        record = self._record(trip, outcome)
        if trip.unsettled:
            self._open[record.id] = record
            task = asyncio.get_running_loop().create_task(self._settle(record, dict(trip.unsettled)))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
        else:
            self._keep(record)
        return record

    async def get(self, decision_id: str) -> Json | None:
        """A receipt, also of what is not settled or not written yet."""
        if (record := self._open.get(decision_id)) is not None:
            return receipt(record)
        return await self._ledger.get(decision_id)

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is being settled; used by a replica that leaves. What takes longer is recorded as it is known."""
        if not self._settling:
            return
        _, late = await asyncio.wait(set(self._settling), timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _settle(self, record: Record, unsettled: dict[int, str]) -> None:
        try:
            attempts = list(record.attempts)
            asked = (self._engines[attempts[number].tier].settled(request_id) for number, request_id in unsettled.items())
            for number, usage in zip(unsettled, await asyncio.gather(*asked), strict=True):
                if usage is not None:
                    attempts[number] = self._priced(replace(attempts[number], usage=usage))
            record = self._summed(record, tuple(attempts))
        finally:
            del self._open[record.id]
            self._keep(record)

    def _keep(self, record: Record) -> None:
        self._ledger.record(record)
        for attempt in record.attempts:
            self._observer.attempted(attempt)
        self._observer.finished(record)
        for listener in self._listeners:
            listener(record)

    def _priced(self, attempt: Attempt) -> Attempt:
        return replace(attempt, cost_usd=cost.dollars(attempt.usage, self._prices[attempt.tier]))

    def _summed(self, record: Record, attempts: tuple[Attempt, ...]) -> Record:
        return replace(record, attempts=attempts, cost_usd=cost.total(attempts), all_large_usd=cost.all_large(attempts, self._prices))

    def _record(self, trip: Trip, outcome: Outcome) -> Record:
        request = trip.request
        return Record(
            id=request.id,
            created=trip.created,
            kind=request.kind,
            stream=request.stream,
            decision=trip.decision,
            outcome=outcome,
            attempts=trip.attempts,
            cost_usd=cost.total(trip.attempts),
            all_large_usd=cost.all_large(trip.attempts, self._prices),
            overhead_seconds=trip.overhead,
            total_seconds=self._clock.monotonic() - trip.started,
            prompt_hash=self._fingerprint(request.text),
            prompt_chars=len(request.text),
            session=request.session,
            key=request.client.key,
            prompt=request.body if self._store_prompts else None,
            trace=request.trace,
        )
