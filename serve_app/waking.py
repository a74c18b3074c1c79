"""Tiers without a replica on purpose: how long a start takes, and who waits for one. No Ray, no I/O; time is the clock's."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from serve_app.domain import Tier, TierLoad
from serve_app.errors import NotReady, Overloaded
from serve_app.ports import Clock, Engine, Engines
from serve_app.settings import WakingSettings

log = logging.getLogger(__name__)
CURRENT_S = 20.0  # Serve's word on a deployment is taken for so long
UNANSWERED_S = 30.0  # a call that moved Serve to nothing for so long began no start
CALL_S = 1800.0  # a start that needs a new machine takes minutes
PAUSE_S = 1.0
SHORTEST_ETA_S = 1.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Serve's word on the replicas of one deployment. `as_of` is the clock's monotonic time of the question."""

    target: int
    running: int
    starting: int
    may_sleep: bool  # none of them is needed: `min_replicas: 0`
    broken: bool  # Serve calls the deployment unhealthy
    as_of: float

    @property
    def dormant(self) -> bool:
        """No replica runs, and that is no fault: it sleeps, or is being woken."""
        return self.may_sleep and not self.broken and self.running == 0


class Starts:
    """One tier's starts, as one ingress sees them. Owns when the present one began, and how long the last ones took.

    `heard` gives the monotonic time at which a replica last answered: news of a replica outdate what Serve said before. `told` is
    the seconds of a start, as a replica told last; `guess_s` stands for it until one has.
    """

    def __init__(
        self,
        fleet: Callable[[], Fleet | None],
        *,
        heard: Callable[[], float],
        told: Callable[[], float | None],
        guess_s: float,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._heard = heard
        self._told = told
        self._guess_s = guess_s
        self._clock = clock
        self._began: float | None = None
        self._ran = 0  # replicas when it began
        self._took: float | None = None

    def dormant(self) -> bool:
        """Whether the tier has no replica on purpose. False where Serve has not said so lately."""
        fleet = self._current()
        return fleet is not None and fleet.dormant and self._heard() < fleet.as_of

    def roused(self) -> None:
        """Somebody asks for a replica: from now on it is counted how long it takes."""
        if self._began is None:
            fleet = self._current()
            self._began, self._ran = self._clock.monotonic(), 0 if fleet is None else fleet.running

    def observe(self) -> None:
        """Follow what Serve and the replicas say; called every second or so."""
        fleet, now = self._current(), self._clock.monotonic()
        if fleet is None:
            return
        if fleet.starting and (fleet.running or self._heard() < fleet.as_of):
            self.roused()
        elif self._began is not None and not self.dormant():
            came = fleet.running > self._ran or (self._ran == 0 and self._heard() >= fleet.as_of)
            self._took = now - self._began if came else self._took  # else it was given up
            self._began = None
        elif self._began is not None and now - self._began > UNANSWERED_S:
            self._began = None

    def eta(self) -> float | None:
        """Seconds until the next replica runs: None when none is wanted. A start that takes longer than ever is soon over."""
        expected = max(self._took or 0.0, self._told() or 0.0) or self._guess_s  # a start that was met half-way seems short
        if self._began is not None:
            left = expected - (self._clock.monotonic() - self._began)
            return max(left, expected / 10, SHORTEST_ETA_S)
        return max(expected, SHORTEST_ETA_S) if self.dormant() else None

    def seen(self, load: TierLoad | None) -> TierLoad | None:
        """The replicas' own report, or that there are none, with what is known of starts."""
        fleet = self._current()
        if fleet is None:
            return load if load is None else replace(load, cold_start=self._told())
        if self.dormant() or (load is None and not fleet.running):
            load = TierLoad(replicas=0, waiting=0, running=0, capacity=0, as_of=self._clock.now())
        if load is None:
            return None
        return replace(load, starting=fleet.starting, target=fleet.target, cold_start=self._told(), cold_eta=self.eta())

    def _current(self) -> Fleet | None:
        fleet = self._fleet()
        return fleet if fleet is not None and self._clock.monotonic() - fleet.as_of <= CURRENT_S else None


class Waking:
    """Requests for tiers that sleep. Owns one call for a replica of each tier, and the number of those who wait for it.

    That call belongs to no request: nobody is charged for it, and who leaves does not end it.
    """

    def __init__(self, engines: Engines, settings: WakingSettings) -> None:
        self._engines = engines
        self._settings = settings
        self._calls: dict[Tier, asyncio.Task[None]] = {}
        self._waiting = dict.fromkeys(Tier, 0)

    def available(self, tier: Tier) -> bool:
        """Whether the router may choose the tier: it has a replica, or sleeps and may be waited for."""
        engine = self._engines[tier]
        return engine.ready() or (engine.dormant() and self._settings.policy == "wait")

    def sleeps(self, tier: Tier) -> bool:
        return self._engines[tier].dormant()

    def waiting(self, tier: Tier) -> int:
        return self._waiting[tier]

    def rouse(self, tier: Tier) -> "asyncio.Task[None]":
        """Have a replica started, if that is not under way. The call outlasts whoever waits: without one, Serve may give up the start."""
        call = self._calls.get(tier)
        if call is None or call.done():
            call = self._calls[tier] = asyncio.get_running_loop().create_task(self._call(tier))
        return call

    async def awake(self, tier: Tier, most_s: float) -> None:
        """Wait until the tier has a replica; at once where it does not sleep.

        Raises `NotReady` with the time left after `max_wait_s`, or `most_s` where that is less, and `Overloaded` when too many wait.
        """
        engine = self._engines[tier]
        if not engine.dormant():
            return
        if self._waiting[tier] >= self._settings.max_waiting:
            raise Overloaded("Too many requests wait for the model to start.", retry_after=_eta(engine, self._settings))
        self._waiting[tier] += 1
        try:
            async with asyncio.timeout(min(self._settings.max_wait_s, most_s)):
                while engine.dormant():
                    await asyncio.shield(self.rouse(tier))
        except TimeoutError:
            eta = _eta(engine, self._settings)
            raise NotReady(f"The model is starting, which takes about {eta:.0f} s more.", retry_after=eta) from None
        finally:
            self._waiting[tier] -= 1

    async def close(self) -> None:
        """End the calls that are under way."""
        calls = [call for call in self._calls.values() if not call.done()]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _call(self, tier: Tier) -> None:
        log.info("the %s tier sleeps: a replica is started", tier.value)
        try:
            async with asyncio.timeout(CALL_S):
                await self._engines[tier].wake()
        except Exception as error:  # noqa: BLE001 - whatever Serve says, those who wait ask again until their time is over
            log.warning("the %s tier did not wake: %s", tier.value, type(error).__name__)
            await asyncio.sleep(PAUSE_S)


def _eta(engine: Engine, settings: WakingSettings) -> float:
    load = engine.load()
    return settings.guess_s if load is None or load.cold_eta is None else load.cold_eta
