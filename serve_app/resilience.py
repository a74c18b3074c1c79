"""When to stop asking a tier that is broken, and when another try is affordable. No I/O; time and chance are arguments."""

from collections import deque
from enum import StrEnum

from serve_app.ports import Clock
from serve_app.settings import BreakerSettings, RetrySettings


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


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

    @property
    def state(self) -> BreakerState:
        if self._opened is None:
            return BreakerState.CLOSED
        rested = self._clock.monotonic() - self._opened >= self._settings.open_s
        return BreakerState.HALF_OPEN if rested else BreakerState.OPEN

    def allows(self) -> bool:
        """Whether a call may be made now. In half-open state the first caller gets the probe, the others wait for it."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return False
        now = self._clock.monotonic()
        if self._probing is not None and now - self._probing < self._settings.open_s:
            return False
        self._probing = now
        return True

    def succeeded(self) -> None:
        if self._opened is not None:
            self._opened = self._probing = None
            self._outcomes.clear()
        self._outcomes.append((self._clock.monotonic(), True))

    def failed(self) -> None:
        now = self._clock.monotonic()
        self._outcomes.append((now, False))
        if self._opened is not None:
            if self.state is BreakerState.HALF_OPEN:
                self._opened, self._probing = now, None
        elif self._broken(now):
            self._opened = now

    def abandoned(self) -> None:
        """A call ended without saying anything of the tier's health: a probe's place is free again."""
        self._probing = None

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

    def withdraw(self) -> bool:
        """Take a retry; False when there is none."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def backoff(retry: int, settings: RetrySettings, chance: float) -> float:
    """Seconds before retry number `retry` (from 0): full jitter, `chance` in [0, 1) of a doubling, capped interval."""
    return chance * min(settings.max_backoff_s, settings.backoff_s * 2.0**retry)
