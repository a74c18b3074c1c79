"""An engine that only waits: `SEQUENCES` at a time, the others queue inside it, as they do in vLLM."""

import asyncio
import time
from collections.abc import AsyncGenerator

from serve_app.deployments.scaled import Scaled

SEQUENCES = 16
LOADING_S = 3.0


class WaitingEngine(Scaled):
    """Owns `SEQUENCES` places. Its queues are what it reports, as a tier's engine does."""

    def __init__(self, loading_s: float = LOADING_S) -> None:
        self._places = asyncio.Semaphore(SEQUENCES)
        self._inside = self._running = 0
        time.sleep(loading_s)  # a model being loaded: nothing else runs in this process yet

    def queues(self) -> dict[str, int]:
        return {"waiting": self._inside - self._running, "running": self._running, "capacity": SEQUENCES}

    async def answer(self, seconds: float) -> float:
        """Take a place for so long; returns when it was got, in Unix time."""
        self._inside += 1
        try:
            async with self._places:
                started = time.time()
                self._running += 1
                try:
                    await asyncio.sleep(seconds)
                finally:
                    self._running -= 1
                return started
        finally:
            self._inside -= 1

    async def stream(self, seconds: float) -> AsyncGenerator[int]:
        """One number every tenth of a second."""
        for number in range(round(seconds * 10)):
            yield number
            await asyncio.sleep(0.1)
