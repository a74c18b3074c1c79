"""Feedback on its way to the ledger: whoever gives it waits until it is kept, few at a time, so that records find their place."""

import asyncio
import logging
from typing import Any

from ray.serve.handle import DeploymentHandle

from serve_app.domain import Feedback
from serve_app.errors import NotReady

log = logging.getLogger(__name__)
AT_ONCE = 8  # calls; the ledger answers when it has committed, some tens of milliseconds later
WAITING = 256
LEDGER_S = 10.0


class Opinions:
    """Owns how much feedback waits in this ingress. The ledger's own queue is the writer's, which is bounded too."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def keep(self, given: Feedback) -> None:
        """Raises `NotReady` when too much waits or the ledger does not take it in time; saying it again is harmless then."""
        if self._waiting >= WAITING:
            raise NotReady("The ledger is busy.", retry_after=5.0)
        self._waiting += 1
        try:
            async with asyncio.timeout(LEDGER_S), self._places:
                await self._handle.record.remote([given])
        except Exception as error:
            log.warning("the ledger did not take feedback: %s", type(error).__name__)
            raise NotReady("The ledger does not answer.", retry_after=5.0) from error
        finally:
            self._waiting -= 1
