"""The ports over Serve's handles: what the ingress uses to reach every other deployment.

Both transports behave alike through these: a handle's generator is always cancelled (leaving it does not stop the engine),
and whatever the transport raises becomes one of our errors.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from serve_app.domain import Json, Kind, Record, SelfAssessment, TierLoad
from serve_app.errors import EngineFailed, EngineRejected, NotReady, Overloaded
from serve_app.observe.receipt import receipt
from serve_app.ports import Clock, Embedding
from serve_app.stream import engine_error

log = logging.getLogger(__name__)
STALE_S = 5.0
READY_S = 30.0
RETRY_S = 1.0
ON_ITS_WAY_S = 0.2
LEDGER_S = 10.0


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ReplicaWatch:
    """Owns the last reports of a deployment's replicas, which a task of the ingress refreshes."""

    def __init__(self, handle: DeploymentHandle[Any], clock: Clock) -> None:
        self._handle = handle
        self._clock = clock
        self._reports: list[dict[str, int]] = []
        self._as_of = 0.0
        self._seen = -math.inf

    async def refresh(self, timeout_s: float = 2.0) -> None:
        """Ask every replica; answers that do not come leave the old ones to grow stale."""
        try:
            response = self._handle.broadcast("load_report")
            reports = await asyncio.to_thread(response.results, timeout_s=timeout_s, return_exceptions=True)
        except Exception as error:  # noqa: BLE001 - a monitor: no replica, a dead one or a slow controller must not stop it
            log.debug("no load report: %s", type(error).__name__)
            return
        if answered := [report for report in reports if isinstance(report, dict)]:
            self._reports, self._as_of, self._seen = answered, self._clock.now(), self._clock.monotonic()

    def age(self) -> float:
        """Seconds since the last report; infinite before the first."""
        return self._clock.monotonic() - self._seen

    def ready(self) -> bool:
        return self.age() <= READY_S

    def load(self) -> TierLoad | None:
        if self.age() > STALE_S:
            return None
        return TierLoad(
            replicas=len(self._reports),
            waiting=self._sum("waiting"),
            running=self._sum("running"),
            capacity=self._sum("capacity"),
            as_of=self._as_of,
            counters={name: self._sum(name) for name in ("prompt_tokens", "generation_tokens")},
        )

    def _sum(self, name: str) -> int:
        return sum(report[name] for report in self._reports)


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
    """One tier."""

    def __init__(self, model: str, handle: DeploymentHandle[Any], watch: ReplicaWatch) -> None:
        self.model = model
        self._handle = handle
        self._watch = watch

    async def generate(self, kind: Kind, body: Json, *, request_id: str, session: str | None = None) -> AsyncGenerator[str | Json]:
        del session  # replica affinity is not built yet
        generator = None
        try:
            generator = self._handle.options(stream=True).generate.remote(kind, body, request_id)
            async for item in generator:
                if isinstance(item, dict) and "error" in item:
                    raise engine_error(item["error"])
                yield item
        except (asyncio.CancelledError, GeneratorExit, EngineRejected, EngineFailed):
            raise
        except BackPressureError:
            raise Overloaded("The model's queue is full.", retry_after=1.0) from None
        except Exception as error:
            # The boundary to the transport: RayTaskError, RayActorError, or the replica's own exception, by transport.
            log.warning("engine call failed: %s", type(error).__name__, exc_info=error)
            raise EngineFailed("The model failed to answer.") from error
        finally:
            if generator is not None:
                generator.cancel()

    async def count(self, kind: Kind, body: Json) -> int:
        try:
            answer = await self._handle.count.remote(kind, body)
        except Exception as error:
            log.warning("counting failed: %s", type(error).__name__)
            raise EngineFailed("The model did not count the prompt.") from error
        if "error" in answer:
            raise engine_error(answer["error"])
        return int(answer["tokens"])

    def load(self) -> TierLoad | None:
        return self._watch.load()

    def ready(self) -> bool:
        return self._watch.ready()


class HandleLedger:
    """Hands records to the ledger's writer without ever making a request wait. Owns its queue: what overflows is counted."""

    def __init__(self, handle: DeploymentHandle[Any], *, queue: int, batch: int, on_drop: Callable[[int], None]) -> None:
        self._handle = handle
        self._waiting: deque[Record] = deque()
        self._queue = queue
        self._batch = batch
        self._on_drop = on_drop
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()

    def record(self, record: Record) -> None:
        if len(self._waiting) >= self._queue:
            self._on_drop(1)
            return
        self._waiting.append(record)
        self._news.set()

    async def get(self, decision_id: str) -> Json | None:
        for record in self._waiting:
            if record.id == decision_id:
                return receipt(record)
        found = await self._ask(decision_id)
        if found is None:  # another ingress replica may have it on its way: that takes milliseconds
            await asyncio.sleep(ON_ITS_WAY_S)
            found = await self._ask(decision_id)
        return found

    async def _ask(self, decision_id: str) -> Json | None:
        try:
            async with asyncio.timeout(LEDGER_S):
                return await self._handle.get.remote(decision_id)  # type: ignore[no-any-return]
        except Exception as error:
            log.warning("the ledger did not answer: %s", type(error).__name__)
            raise NotReady("The ledger does not answer.", retry_after=5.0) from error

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
                batch = [self._waiting[i] for i in range(min(self._batch, len(self._waiting)))]
                if not await self._sent(batch):
                    return False
                for _ in batch:
                    self._waiting.popleft()
        return True

    async def _sent(self, batch: list[Record]) -> bool:
        try:
            async with asyncio.timeout(LEDGER_S):
                await self._handle.record.remote([receipt(record) for record in batch])
        except Exception as error:  # noqa: BLE001 - the ledger may be down in any way; the records stay in the queue
            log.warning("the ledger did not take %d records: %s", len(batch), type(error).__name__)
            return False
        return True
