"""Probes that an engine's replica sends itself: the first answer of its start, then one now and then in quiet hours."""

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from zoneinfo import ZoneInfo

from serve_app.deployments.settlement import Told
from serve_app.domain import Json
from serve_app.routing import schedule
from serve_app.settings import PrewarmSettings

log = logging.getLogger("ray.serve")  # the one whose lines stand in the replica's log
REUSED_S = 30.0  # a process that waited longer than this for its actor was idle: the wait is none of the start's time


class Prewarm:
    """Owns what the probes of one replica used, which is no client's, and how long its start took.

    `now` gives Unix time. `probe` asks the engine under the id that it is given and raises when that fails; `used` then says what
    the id has used, `idle` whether the engine has nothing else to do.
    """

    def __init__(
        self,
        name: str,
        settings: PrewarmSettings,
        now: Callable[[], float],
        *,
        probe: Callable[[str], Awaitable[object]],
        used: Callable[[list[str]], Told],
        idle: Callable[[], bool],
    ) -> None:
        self._name = name
        self._settings = settings
        self._now = now
        self._probe = probe
        self._used = used
        self._idle = idle
        self._windows = [schedule.parse(window) for window in settings.off_peak]
        self._zone = ZoneInfo(settings.timezone)
        self._numbers = itertools.count()
        self._probing = self._probes = self._failures = 0
        self._prompt_tokens = self._generation_tokens = 0
        self._cold_start_s: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, began: float) -> None:
        """The first answer, without which a replica is not ready; then probes by the schedule. `began` is Unix time.

        Raises `RuntimeError` when the answer fails or does not come.
        """
        try:
            await self._ask(self._settings.start_timeout_s)
        except Exception as error:
            why = "none in time" if isinstance(error, TimeoutError) else str(error)
            log.error("the start of %s fails with its first answer: %s", self._name, why)
            raise RuntimeError(f"the engine's first answer failed: {why}") from error
        self._cold_start_s = round(self._now() - began, 2)
        log.info("%s is ready, %.1f s after its start", self._name, self._cold_start_s)
        if self._windows:
            self._task = asyncio.get_running_loop().create_task(self.run())

    async def run(self) -> None:
        """For ever; never raises."""
        while True:
            await asyncio.sleep(self._settings.every_s)
            await self.turn()

    async def turn(self) -> None:
        """A probe, if it is off-peak and the engine idle. One that fails is counted and logged: health checks decide on health."""
        if not schedule.within(self._windows, self._zone, self._now()) or not self._idle():
            return
        try:
            await self._ask(self._settings.timeout_s)
        except Exception as error:  # noqa: BLE001 - whatever an engine does, the next probe has its turn
            self._failures += 1
            log.warning("a probe of %s failed: %s", self._name, type(error).__name__)

    async def close(self) -> None:
        """Cancel a probe that runs, and the schedule."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def report(self, queues: Json) -> Json:
        """The engine's queues and counters without what probes used, and that beside them."""
        if self._cold_start_s is not None:
            queues = {**queues, "cold_start_s": self._cold_start_s}
        return {
            **queues,
            "prompt_tokens": queues["prompt_tokens"] - self._prompt_tokens,
            "generation_tokens": queues["generation_tokens"] - self._generation_tokens,
            "probes": self._probes,
            "probe_tokens": self._prompt_tokens + self._generation_tokens,
            "probe_failures": self._failures,
        }

    @property
    def probes(self) -> int:
        """Probes that were ever begun."""
        return self._probes

    @property
    def probing(self) -> int:
        """Probes that run right now: sequences of the engine that are no load."""
        return self._probing

    async def _ask(self, most_s: float) -> None:
        request_id = f"probe-{next(self._numbers)}"
        self._probes += 1
        self._probing += 1
        try:
            async with asyncio.timeout(most_s):
                await self._probe(request_id)
        finally:
            self._probing -= 1
            prompt, generated, _ = self._used([request_id]).get(request_id, (0, 0, 0))
            self._prompt_tokens += prompt
            self._generation_tokens += generated


def process_began(now: float) -> float:
    """When the start of this replica began, Unix time: with its process, or `now` where Ray had one idle and at hand."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - vLLM brings it, in the replicas that need it

    began = float(psutil.Process(os.getpid()).create_time())
    return began if 0 <= now - began <= REUSED_S else now
