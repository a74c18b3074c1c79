"""Which calibration is in force in one replica of the ingress, and how another one gets there while requests are answered.

An artefact is named by the hash of its bytes and comes from the ledger's database, part by part. Until it is here, checked and
loaded, the old one stays in force together with the threshold that was in force with it: a score means nothing against another
artefact's threshold.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, TypeAlias

from ray.serve.handle import DeploymentHandle

from serve_app.domain import Json
from serve_app.errors import CalibrationError
from serve_app.observe.artefacts import MOST_BYTES, Part
from serve_app.routing.score import Artefact, load
from serve_app.settings import Live
from serve_app.settings.live import PROFILE

log = logging.getLogger(__name__)
PART_S = 10.0
FETCH_S = 120.0
RETRY_S, MOST_RETRY_S = 1.0, 60.0
Fetch: TypeAlias = Callable[[str, int], Awaitable[Part | None]]
Sleep: TypeAlias = Callable[[float], Awaitable[None]]


class Refusal(StrEnum):
    """Why a wanted artefact is not in force: a closed set, used as a metric label."""

    AWAY = "away"  # the ledger does not answer
    UNKNOWN = "unknown"  # it has no such artefact
    DAMAGED = "damaged"  # the bytes are not what the name says
    UNSUITABLE = "unsuitable"  # made for another embedder, or no artefact of this version: it never will be


class Refused(Exception):
    """A try that failed; the old one stays."""

    def __init__(self, why: Refusal, says: str) -> None:
        super().__init__(says)
        self.why = why


class LiveCalibration:
    """Owns what is wanted, what is in force, and the task that brings the wanted artefact.

    `put` gets live settings and the artefact that they hold for, both at once, and must take them over at once. `refused` is told
    of each try that failed. Tries go on, ever more rarely, while they may still succeed.
    """

    def __init__(
        self,
        profile: Artefact,
        *,
        fetch: Fetch,
        embedder: str,
        put: Callable[[Live, Artefact], None],
        refused: Callable[[Refusal], None],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._profile = self._artefact = profile
        self._fetch = fetch
        self._embedder = embedder
        self._put = put
        self._refused = refused
        self._sleep = sleep
        self._live = self._wanted = Live()
        self._bringing: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._tries = 0

    @property
    def artefact(self) -> Artefact:
        """The one in force."""
        return self._artefact

    def want(self, live: Live) -> None:
        """Take `live` over: at once, but its calibration and its threshold together as soon as the artefact is here.

        To be called in the event loop.
        """
        self.stop()
        self._wanted, self._problem, self._tries = live, None, 0
        known = {PROFILE: self._profile, self._profile.sha256: self._profile, self._artefact.sha256: self._artefact}
        if (artefact := known.get(live.calibration)) is not None:
            self._take_over(live, artefact)
            return
        pair = {"calibration": self._live.calibration, "threshold": self._live.threshold}
        self._take_over(live.model_copy(update=pair), self._artefact)
        self._bringing = asyncio.get_running_loop().create_task(self._bring(live))

    async def settled(self, seconds: float) -> None:
        """Until what is wanted is in force, `seconds` at most."""
        if self._bringing is not None:
            await asyncio.wait([self._bringing], timeout=seconds)

    def stop(self) -> None:
        """Nobody waits for the artefact any more."""
        if self._bringing is not None:
            self._bringing.cancel()
            self._bringing = None

    def status(self) -> Json:
        """For `/status`. `problem` says why the wanted one is not in force, where it is not."""
        now = self._artefact
        return {
            "wanted": self._wanted.calibration,
            "in_force": now.sha256,
            "kind": now.kind,
            "threshold": now.threshold,
            "problem": self._problem,
            "tries": self._tries,
        }

    def _take_over(self, live: Live, artefact: Artefact) -> None:
        self._live, self._artefact = live, artefact
        self._put(live, artefact)

    async def _bring(self, live: Live) -> None:
        wait = RETRY_S
        while True:
            try:
                self._take_over(live, await self._fetched(live.calibration))
            except Refused as refused:
                self._note(live.calibration, refused)
                if refused.why is Refusal.UNSUITABLE:
                    return
                await self._sleep(wait)
                wait = min(2 * wait, MOST_RETRY_S)
            else:
                self._problem = None
                log.info("the calibration %.12s is in force", live.calibration)
                return

    def _note(self, name: str, refused: Refused) -> None:
        self._tries += 1
        self._refused(refused.why)
        if str(refused) != self._problem:  # each try would say the same again
            self._problem = str(refused)
            log.error("the calibration %.12s is refused, the old one stays in force: %s", name, refused)

    async def _fetched(self, name: str) -> Artefact:
        try:
            async with asyncio.timeout(FETCH_S):
                data = await self._whole(name)
        except Refused:
            raise
        except Exception as error:  # the ledger may be away in any way; the old one stays
            raise Refused(Refusal.AWAY, f"the ledger does not answer ({type(error).__name__})") from error
        return await asyncio.to_thread(_loaded, name, data, self._embedder)

    async def _whole(self, name: str) -> bytes:
        parts = bytearray()
        while (part := await self._fetch(name, len(parts))) is not None:
            parts += part.data
            if not part.data or len(parts) >= part.size or part.size > MOST_BYTES:
                return bytes(parts)
        raise Refused(Refusal.UNKNOWN, "the ledger has no such artefact")


def _loaded(name: str, data: bytes, embedder: str) -> Artefact:
    """Takes milliseconds, for a large one more: not for the event loop."""
    if hashlib.sha256(data).hexdigest() != name:
        raise Refused(Refusal.DAMAGED, "its bytes are not what its name says")
    try:
        return load(data, embedder)
    except Exception as error:  # whatever its loading raises, it is none that can be served
        says = error.message if isinstance(error, CalibrationError) else f"cannot be loaded ({type(error).__name__})"
        raise Refused(Refusal.UNSUITABLE, says) from error


class Shelf:
    """The ledger's artefacts over Serve's handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def part(self, name: str, start: int) -> Part | None:
        """A part of an artefact from byte `start` on; None when there is none. Raises whatever the transport raises."""
        async with asyncio.timeout(PART_S):
            return await self._handle.artefact.remote(name, start)  # type: ignore[no-any-return]
