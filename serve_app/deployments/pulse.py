"""Tells a hung engine from a busy one: a core that is stopped passes vLLM's own health check for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)
EVERY_S = 2.0
GRACE_S = 1.0


class Pulse:
    """Asks the engine's core for a sign of life, over and over; owns whether it hangs.

    The core answers between two scheduler steps, so that a step slower than `stall_s` seconds counts as a hang. One that
    hangs is killed, so that the requests inside fail at once and nothing of it stays behind when Serve replaces the replica.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[object]],
        kill: Callable[[], None],
        *,
        stall_s: float,
        every_s: float = EVERY_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._ask = ask
        self._kill = kill
        self._stall_s = stall_s
        self._every_s = every_s
        self._grace_s = grace_s
        self._hangs = False

    async def run(self) -> None:
        """Until the engine hangs or is dead; a dead one is vLLM's own health check's to tell."""
        while await self._beats():  # noqa: ASYNC110 - it asks another process, which sets no event here
            await asyncio.sleep(self._every_s)

    async def _beats(self) -> bool:
        asking = asyncio.ensure_future(self._ask())
        try:
            await asyncio.wait({asking}, timeout=self._stall_s)
            # This process may itself have been stopped: the answer then waits to be read, and a moment is enough.
            await asyncio.wait({asking}, timeout=self._grace_s)
            if asking.done():
                return asking.exception() is None
            log.error("the engine gave no sign of life for %.0f s: it is killed", self._stall_s)
            self._hangs = True
            self._kill()
            return False
        finally:
            asking.cancel()

    def check(self) -> None:
        """Raises when the engine hangs, or has been killed because it did."""
        if self._hangs:
            raise RuntimeError(f"the engine gave no sign of life for {self._stall_s:.0f} s")
