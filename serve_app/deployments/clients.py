"""The ports over Serve's handles: what the ingress uses to reach every other deployment.

Both transports behave alike through these: a handle's generator is always cancelled (leaving it does not stop the engine),
and whatever the transport raises becomes one of our errors.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import replace
from typing import Any

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from serve_app.deployments.opinions import Opinions
from serve_app.deployments.settlement import Inquiries
from serve_app.domain import DecisionQuery, Feedback, Json, Kind, MirrorPair, Record, SelfAssessment, TierLoad, Usage
from serve_app.errors import EngineFailed, EngineRejected, EngineTimeout, NotReady, Overloaded
from serve_app.observe.backlog import MIB, Backlog, Waiting
from serve_app.observe.receipt import receipt, row, without_large_prompt
from serve_app.ports import Clock, Embedding, asked_to_stop
from serve_app.stream import engine_error
from serve_app.waking import Starts

log = logging.getLogger(__name__)
STALE_S = 5.0
READY_S = 30.0
RETRY_S = 1.0
ON_ITS_WAY_S = 0.2
LEDGER_S = 10.0
QUOTAS_S = 2.0
CONNECT_S = 10.0
OWN_CANCEL_S = 1.0  # 50 clients that leave two busy cores at once: 0.14 s at most
SETTLE_S = 4.0
FORGET_S = 60.0
COUNTERS = ("prompt_tokens", "generation_tokens", "probes", "probe_tokens", "probe_failures")
MESSAGE_BYTES = 2 * MIB  # gRPC takes 4 MiB between replicas, receipts and framing included


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ReplicaWatch:
    """Owns the last reports of a deployment's replicas, which a task of the ingress refreshes, and what they are asked besides."""

    def __init__(self, handle: DeploymentHandle[Any], clock: Clock) -> None:
        self._handle = handle
        self._clock = clock
        self._reports: list[dict[str, Any]] = []
        self._as_of = 0.0
        self._seen = -math.inf
        self._cold_start: float | None = None
        self._inquiries = Inquiries()

    async def refresh(self, timeout_s: float = 2.0) -> None:
        """Ask every replica; answers that do not come leave the old ones to grow stale."""
        await asyncio.gather(self._refresh_reports(timeout_s), self._refresh_settled(timeout_s))

    async def settled(self, request_id: str, seconds: float) -> Usage | None:
        """What a generation that ended used, told by its replica at one of the next refreshes; None after `seconds`."""
        return await self._inquiries.wait(request_id, seconds)

    async def _refresh_reports(self, timeout_s: float) -> None:
        if answered := await self._ask(timeout_s, "load_report"):
            self.hear(answered)

    def hear(self, reports: list[dict[str, Any]]) -> None:
        """What every replica says of itself, now."""
        self._reports, self._as_of, self._seen = reports, self._clock.now(), self._clock.monotonic()
        self._cold_start = max((report["cold_start_s"] for report in reports if "cold_start_s" in report), default=self._cold_start)

    async def _refresh_settled(self, timeout_s: float) -> None:
        if waited_for := self._inquiries.open():
            for told in await self._ask(timeout_s, "settled", waited_for):
                self._inquiries.answer(told)

    async def _ask(self, timeout_s: float, method: str, *args: Any) -> list[dict[str, Any]]:
        """What the replicas answer in time."""
        try:
            response = self._handle.broadcast(method, *args)
            answers = await asyncio.to_thread(response.results, timeout_s=timeout_s, return_exceptions=True)
        except Exception as error:  # noqa: BLE001 - a monitor: no replica, a dead one or a slow controller must not stop it
            log.debug("no answer to %s: %s", method, type(error).__name__)
            return []
        return [answer for answer in answers if isinstance(answer, dict)]

    def heard(self) -> float:
        """The clock's monotonic time of the last report; infinitely long ago before the first."""
        return self._seen

    def cold_start(self) -> float | None:
        """Seconds that a start took, as a replica told last; None where none tells it."""
        return self._cold_start

    def age(self) -> float:
        """Seconds since the last report; infinite before the first."""
        return self._clock.monotonic() - self._seen

    def ready(self) -> bool:
        return self.age() <= READY_S

    def each(self, name: str) -> list[Any]:
        """What the replicas that answered lately tell under `name`."""
        return [report[name] for report in self._reports if name in report] if self.age() <= STALE_S else []

    def replicas(self) -> int:
        """Those that answered lately; 0 when unknown."""
        return len(self._reports) if self.age() <= STALE_S else 0

    def load(self) -> TierLoad | None:
        if self.age() > STALE_S:
            return None
        return TierLoad(
            replicas=len(self._reports),
            waiting=self._sum("waiting"),
            running=self._sum("running"),
            capacity=self._sum("capacity"),
            as_of=self._as_of,
            counters={name: self._sum(name) for name in COUNTERS if any(name in report for report in self._reports)},
        )

    def _sum(self, name: str) -> int:
        return sum(report.get(name, 0) for report in self._reports)


class HandleEmbedder:
    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def embed(self, text: str) -> Embedding:
        return await self._handle.embed.remote(text)  # type: ignore[no-any-return]


class HandleAssessor:
    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def assess(self, text: str) -> SelfAssessment:
        return await self._handle.assess.remote(text)  # type: ignore[no-any-return]


class HandleEngine:
    """One tier. `starts` says whether it sleeps; without them it never does."""

    def __init__(
        self,
        model: str,
        handle: DeploymentHandle[Any],
        watch: ReplicaWatch,
        *,
        connect_s: float = CONNECT_S,
        starts: Starts | None = None,
    ) -> None:
        self.model = model
        self._handle = handle
        self._watch = watch
        self._connect_s = connect_s
        self._starts = starts

    async def generate(
        self, kind: Kind, body: Json, *, request_id: str, session: str | None = None, trace: str | None = None
    ) -> AsyncGenerator[str | Json]:
        """See `ports.Engine.generate`. Raises `EngineTimeout` or `Overloaded` when no replica takes the request in time."""
        generator = None
        try:
            traced = () if trace is None else (trace,)
            generator = self._handle.options(stream=True, session_id=session or "").generate.remote(kind, body, request_id, *traced)
            await self._connected(generator)
            async for item in generator:
                if isinstance(item, dict) and "error" in item:
                    raise engine_error(item["error"])
                yield item
        except asyncio.CancelledError:
            if asked_to_stop():
                raise
            # Serve cancels what a request has called a moment before the request itself: then this wait is what is cancelled.
            await asyncio.sleep(OWN_CANCEL_S)
            raise EngineFailed("The model failed to answer.") from None
        except (GeneratorExit, EngineRejected, EngineFailed, EngineTimeout, NotReady, Overloaded):
            raise
        except BackPressureError:
            raise Overloaded("The model's queue is full.", retry_after=1.0) from None
        except Exception as error:
            # The boundary to the transport: RayTaskError, RayActorError, or the replica's own exception, by transport.
            log.warning("engine call failed: %s", type(error).__name__, exc_info=error)
            raise EngineFailed("The model failed to answer.") from error
        finally:
            if generator is not None:
                _stop(generator)

    async def _connected(self, generator: "DeploymentResponseGenerator[str | Json]") -> None:
        """Waiting for a place at replicas that are alive and at work is backpressure; without them it is a fault of ours,
        unless the last of them went to sleep as the request came."""
        try:
            async with asyncio.timeout(self._connect_s):
                await taken(generator)
        except TimeoutError:
            load = self._watch.load()
            if self.dormant():
                raise NotReady("The model is starting.", retry_after=self._connect_s) from None
            if load is not None and load.running + load.waiting > 0:
                raise Overloaded("The model is busy.", retry_after=self._connect_s) from None
            raise EngineTimeout("No replica took the request in time.") from None

    async def settled(self, request_id: str) -> Usage | None:
        return await self._watch.settled(request_id, SETTLE_S)

    async def count(self, kind: Kind, body: Json) -> int:
        if self.dormant():  # a question is no reason to start a replica, nor to wait for one
            raise EngineFailed("The model sleeps, and counts nothing.")
        try:
            answer = await self._handle.count.remote(kind, body)
        except Exception as error:
            log.warning("counting failed: %s", type(error).__name__)
            raise EngineFailed("The model did not count the prompt.") from error
        if "error" in answer:
            raise engine_error(answer["error"])
        return int(answer["tokens"])

    def load(self) -> TierLoad | None:
        return self._watch.load() if self._starts is None else self._starts.seen(self._watch.load())

    def ready(self) -> bool:
        return self._watch.ready() and not self.dormant()

    def dormant(self) -> bool:
        return self._starts is not None and self._starts.dormant()

    async def wake(self) -> None:
        """Serve starts a replica while a call waits at a handle; any would do, and this one's answer is of use."""
        if self._starts is not None:
            self._starts.roused()
        self._watch.hear([await self._handle.load_report.remote()])


def _stop(generator: "DeploymentResponseGenerator[Any]") -> None:
    """Cancel a call that may never have reached a replica: Ray then raises once more what has been told already."""
    try:
        generator.cancel()
    except Exception as error:  # noqa: BLE001 - the call is over either way; why, its caller has been told
        log.debug("nothing to cancel: %s", type(error).__name__)


async def taken(generator: "DeploymentResponseGenerator[Any]") -> None:
    """Until a replica has accepted the call. Ray gives no public way to tell that from the first item; see the contract test."""
    await generator._fetch_future_result_async()  # noqa: SLF001


class HandleLedger:
    """Hands records to the ledger's writer without ever making a request wait. Owns its queue: what overflows is counted.

    `queue_mib` bounds the prompts in it. Pairs of mirrored answers are counted apart: recorded and dropped records together are
    the requests that were answered. `on_acked` gets each record that the ledger has committed.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        *,
        queue: int,
        batch: int,
        on_drop: Callable[[int], None],
        queue_mib: int = 64,
        on_pair: Callable[[str], None] | None = None,
        on_acked: Callable[[Record], None] | None = None,
    ) -> None:
        self._handle = handle
        self._waiting: Backlog[Record | MirrorPair] = Backlog(queue, queue_mib * MIB)
        self._batch = batch
        self._on_drop = on_drop
        self._on_pair = on_pair
        self._on_acked = on_acked
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._opinions = Opinions(handle)

    def record(self, record: Record) -> None:
        """A prompt that is too large or finds no place is left out, the record is kept."""
        if self._waiting.full():
            self._on_drop(1)
            return
        record = without_large_prompt(record)
        self._waiting.add(record if self._waiting.fits([record]) else replace(record, prompt=None))
        self._news.set()

    def mirrored(self, pair: MirrorPair) -> None:
        if self._waiting.fits([pair]):
            self._waiting.add(pair)
            self._news.set()
        elif self._on_pair is not None:
            self._on_pair("dropped")

    @property
    def waiting(self) -> Waiting:
        return self._waiting.waiting

    async def forget(self, key: str | None, session: str | None) -> int:
        """Delete what leads back to a key or a session, here and in the ledger; the number of decisions that were changed.

        Raises `NotReady` when the ledger does not answer: nothing or a part is deleted then, and asking again does the rest.
        """
        try:
            async with asyncio.timeout(FORGET_S):
                if await self.flush():
                    return await self._handle.forget.remote(key, session)  # type: ignore[no-any-return]
        except Exception as error:
            log.warning("the ledger did not delete: %s", type(error).__name__)
            raise NotReady("The ledger does not answer.", retry_after=5.0) from error
        raise NotReady("The ledger does not answer.", retry_after=5.0)

    async def feedback(self, given: Feedback) -> None:
        """See `ports.Ledger.feedback`. What waits here goes first: the decision's record is there then, if it is this replica's."""
        if not await self.flush():
            raise NotReady("The ledger does not answer.", retry_after=5.0)
        await self._opinions.keep(given)

    async def get(self, decision_id: str) -> Json | None:
        if isinstance(record := self._waiting.get(decision_id), Record):
            return receipt(record)
        found = await self._ask(decision_id)
        if found is None:  # another ingress replica may have it on its way: that takes milliseconds
            await asyncio.sleep(ON_ITS_WAY_S)
            found = await self._ask(decision_id)
        return found

    async def page(self, query: DecisionQuery) -> list[Json]:
        """See `ports.Ledger.page`."""
        try:
            async with asyncio.timeout(LEDGER_S):
                return await self._handle.page.remote(query)  # type: ignore[no-any-return]
        except Exception as error:
            log.warning("the ledger did not answer: %s", type(error).__name__)
            raise NotReady("The ledger does not answer.", retry_after=5.0) from error

    async def _ask(self, decision_id: str) -> Json | None:
        try:
            async with asyncio.timeout(LEDGER_S):
                return await self._handle.get.remote(decision_id)  # type: ignore[no-any-return]
        except Exception as error:
            log.warning("the ledger did not answer: %s", type(error).__name__)
            raise NotReady("The ledger does not answer.", retry_after=5.0) from error

    async def sync_quotas(self, replica: str, rows: list[list[str | int]], budgeted: list[str]) -> Json | None:
        """Give this replica's counts of its keys for the others' (see `quotas.py`); None while the ledger is away: all go on alone."""
        try:
            async with asyncio.timeout(QUOTAS_S):
                return await self._handle.sync_quotas.remote(replica, rows, budgeted)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - the ledger may be away in any way; the next second brings the next exchange
            log.debug("no exchange of quotas: %s", type(error).__name__)
            return None

    async def run(self) -> None:
        """Send batches for ever; a batch that fails is tried again, the newest records are dropped when the queue is full."""
        while True:
            await self._news.wait()
            self._news.clear()
            if not await self.flush():
                await asyncio.sleep(RETRY_S)
                self._news.set()

    async def flush(self) -> bool:
        """Send everything that waits; False when the ledger did not take it, and it waits on."""
        async with self._sending:  # the last flush of a leaving replica may meet one that still runs
            while self._waiting:
                batch = self._waiting.first(self._batch, MESSAGE_BYTES)
                if not await self._sent(list(batch.values())):
                    return False
                self._waiting.remove(batch)
                self._acked(batch.values())
        return True

    def _acked(self, batch: Iterable[Record | MirrorPair]) -> None:
        if self._on_acked is not None:
            for item in batch:
                if isinstance(item, Record):
                    self._on_acked(item)

    async def _sent(self, batch: list[Record | MirrorPair]) -> bool:
        try:
            async with asyncio.timeout(LEDGER_S):
                await self._handle.record.remote([item if isinstance(item, MirrorPair) else row(item) for item in batch])
        except Exception as error:  # noqa: BLE001 - the ledger may be down in any way; the records stay in the queue
            log.warning("the ledger did not take %d records: %s", len(batch), type(error).__name__)
            return False
        return True
