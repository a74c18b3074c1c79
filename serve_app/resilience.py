"""When to stop asking a tier that is broken, and when another try is affordable. No I/O; time and chance are arguments."""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from serve_app.ports import Clock
from serve_app.settings import BreakerSettings, RetrySettings


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Ticket:
    """One admitted call. What it tells counts only in the `epoch` in which it was admitted: a call that began before
    the breaker opened says nothing of the tier's health after it."""

    epoch: int
    probe: bool = False


class Breaker:
    """One tier's circuit breaker (Nygard, Release It!, 2007). Owns the recent outcomes of that tier.

    Opens when at least `failures` of the calls of the last `window_s` seconds failed and they are at least `ratio` of
    them. After `open_s` one probe is let through: its success closes the breaker, its failure opens it anew. Only
    faults of the engine are told to it: a client's mistake or a full queue says nothing of a tier's health.
    """

    def __init__(self, settings: BreakerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=settings.max_calls)
        self._opened: float | None = None
        self._probing: float | None = None
        self._epoch = 0

    @property
    def state(self) -> BreakerState:
        if self._opened is None:
            return BreakerState.CLOSED
        rested = self._clock.monotonic() - self._opened >= self._settings.open_s
        return BreakerState.HALF_OPEN if rested else BreakerState.OPEN

    def admit(self) -> Ticket | None:
        """A ticket for a call, or None. In half-open state one call at a time gets it, as the probe."""
        if self.state is BreakerState.CLOSED:
            return Ticket(self._epoch)
        now = self._clock.monotonic()
        busy = self._probing is not None and now - self._probing < self._settings.open_s
        if self.state is BreakerState.OPEN or busy:
            return None
        self._probing = now
        return Ticket(self._epoch, probe=True)

    def succeeded(self, ticket: Ticket) -> None:
        if ticket.epoch != self._epoch:
            return
        if ticket.probe:
            self._become(None)
        self._outcomes.append((self._clock.monotonic(), True))

    def failed(self, ticket: Ticket) -> None:
        if ticket.epoch != self._epoch:
            return
        now = self._clock.monotonic()
        self._outcomes.append((now, False))
        if ticket.probe or (self._opened is None and self._broken(now)):
            self._become(now)

    def abandoned(self, ticket: Ticket) -> None:
        """A call ended without saying anything of the tier's health; a probe's place is free again."""
        if ticket.probe and ticket.epoch == self._epoch:
            self._probing = None

    def _become(self, opened: float | None) -> None:
        self._opened, self._probing = opened, None
        self._epoch += 1
        self._outcomes.clear()

    def _broken(self, now: float) -> bool:
        recent = [ok for at, ok in self._outcomes if now - at <= self._settings.window_s]
        failures = recent.count(False)
        return failures >= self._settings.failures and failures >= self._settings.ratio * len(recent)


class RetryBudget:
    """Retries are at most a share of the requests (Google SRE book, chapter 21): they must not multiply an overload.

    Every request adds `share` of a retry, up to `reserve`; every retry takes one. Starts full, so that the first faults
    after a start are covered.
    """

    def __init__(self, settings: RetrySettings) -> None:
        self._share = settings.share
        self._reserve = settings.reserve
        self._tokens = float(settings.reserve)

    def deposit(self) -> None:
        self._tokens = min(self._reserve, self._tokens + self._share)

    def has_one(self) -> bool:
        return self._tokens >= 1.0

    def withdraw(self) -> bool:
        """Take a retry; False when there is none."""
        if not self.has_one():
            return False
        self._tokens -= 1.0
        return True


def backoff(retry: int, settings: RetrySettings, chance: float) -> float:
    """Seconds before retry number `retry` (from 0): full jitter, `chance` in [0, 1) of a doubling, capped interval."""
    return chance * min(settings.max_backoff_s, settings.backoff_s * 2.0**retry)
