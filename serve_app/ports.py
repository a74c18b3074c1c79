"""What the pipeline needs from the outside world. Wiring implements these; tests fake them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from serve_app.domain import (
    Attempt,
    Decision,
    DecisionQuery,
    Feedback,
    Json,
    Kind,
    MirrorPair,
    Record,
    SelfAssessment,
    SignalState,
    Tier,
    TierLoad,
    Usage,
)

Embedding = npt.NDArray[np.float32]


def asked_to_stop() -> bool:
    """Inside an `except CancelledError`: whether this task was cancelled. A transport raises the same when its far side was."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class Clock(Protocol):
    def now(self) -> float:
        """Unix time in seconds."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point; never goes back."""


class Embedder(Protocol):
    async def embed(self, text: str) -> Embedding:
        """Return the L2-normalised embedding, shape (dim,). Raises whatever the transport raises."""


class SelfAssessor(Protocol):
    async def assess(self, text: str) -> SelfAssessment:
        """Ask the router LLM how hard `text` is. Raises whatever the transport raises."""


class Engine(Protocol):
    """One tier. JSON in; out come either SSE `data:` strings (a stream) or exactly one dict (a plain answer)."""

    model: str

    def generate(
        self, kind: Kind, body: Json, *, request_id: str, session: str | None = None, trace: str | None = None
    ) -> AsyncGenerator[str | Json]:
        """Yield the engine's answer; closing the generator cancels the generation in the engine. `trace` is a W3C `traceparent`.

        Each string holds one or more whole SSE events. Raises `EngineRejected` when the engine refuses the
        request, `EngineFailed` when it breaks.
        """

    async def count(self, kind: Kind, body: Json) -> int:
        """The prompt's length in this tier's tokens, template and tools included.

        Raises `EngineRejected` when the engine cannot read the prompt, `EngineFailed` when it does not answer.
        """

    async def settled(self, request_id: str) -> Usage | None:
        """What a cancelled generation had used when the engine stopped it; None when the engine does not say.

        Waits a few seconds at most. Never raises.
        """

    def load(self) -> TierLoad | None:
        """The engine's own queues, or None when unknown or older than 5 s."""

    def ready(self) -> bool:
        """Whether a replica has answered lately; a busy one may be too late for `load` and still be ready."""

    def dormant(self) -> bool:
        """Whether the tier has no replica on purpose: it sleeps, or is being woken. It is not ready then, and nothing is wrong."""

    async def wake(self) -> None:
        """Have a replica started, and wait until it answers. Raises whatever the transport raises; it may wait for ever."""


class Ledger(Protocol):
    def record(self, record: Record) -> None:
        """Keep a record; never blocks. What cannot be kept is counted as dropped."""

    def mirrored(self, pair: MirrorPair) -> None:
        """Keep two answers for judging; never blocks. What cannot be kept is counted as dropped."""

    async def get(self, decision_id: str) -> dict[str, Any] | None:
        """The stored receipt, also when it has not been flushed yet; None when unknown."""

    async def page(self, query: DecisionQuery) -> list[dict[str, Any]]:
        """What was written of the decisions asked for, newest first, without signals and attempts: `get` has those.

        Raises `NotReady` when the ledger does not answer.
        """

    async def feedback(self, given: Feedback) -> None:
        """Keep what somebody thinks of an answer, in the place of what the same key said of it before.

        It is kept when this returns. Raises `NotReady` when the ledger does not take it in time.
        """

    async def forget(self, key: str | None, session: str | None) -> int:
        """Delete what leads back to a session, to a key, or to a session of a key; None is any. The number of decisions changed.

        Raises `NotReady` when it cannot be known whether all of it is gone.
        """


class Observer(Protocol):
    """Where counts and durations go; never blocks and never raises."""

    def decided(self, decision: Decision) -> None: ...

    def signal_fault(self, signal: str, state: SignalState) -> None: ...

    def attempted(self, attempt: Attempt) -> None: ...

    def retried(self, tier: Tier) -> None: ...

    def fell_back(self, tier: Tier) -> None: ...

    def finished(self, record: Record) -> None: ...

    def skipped_chunk(self, tier: Tier) -> None: ...

    def escalated(self) -> None: ...

    def refused(self, why: str) -> None: ...

    def mirrored(self, what: str) -> None: ...

    def compared(self, pair: MirrorPair, *, same: bool) -> None: ...

    def told(self, feedback: Feedback) -> None: ...


Engines = Mapping[Tier, Engine]
