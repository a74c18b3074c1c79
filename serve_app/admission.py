"""Who may enter a tier's queue, and when the others should come back. No I/O; time is the clock's."""

import math
from collections import deque
from collections.abc import Callable
from types import TracebackType

from serve_app.errors import Overloaded
from serve_app.ports import Clock

FULL = "The model's queue is full."
SHORTEST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


class Gate:
    """One tier's bounded queue, as one ingress replica sees it. Owns who is in flight and how fast the tier finishes.

    `most_in_flight` bounds the count whatever the speed, `max_wait_s` the expected wait for a free sequence. `capacity` gives the
    sequences that this replica may count on (all of the engine's, by the number of ingress replicas that share them evenly), or
    None when unknown; then, and where it is 0, only the count is bounded.
    """

    def __init__(self, most_in_flight: int, max_wait_s: float, clock: Clock, capacity: Callable[[], int | None]) -> None:
        self._most = most_in_flight
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._capacity = capacity
        self._in_flight = 0
        self._pace = Pace()
        self._promised = -math.inf  # until then, places that get free belong to those who were sent away

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def expected_wait_s(self) -> float | None:
        """What one more request would wait for a free sequence; None while the tier's speed or capacity is unknown."""
        self._pace.move_to(self._clock.monotonic())
        capacity, rate = self._capacity(), self._pace.rate()
        if capacity is not None and self._in_flight < capacity:
            return 0.0
        return (self._in_flight - capacity + 1) / rate if capacity and rate else None

    def enter(self) -> "Place":
        """A place, which must be left again. Raises `Overloaded`, with the seconds after which there should be room.

        A tier with a free sequence always admits, however slow it was, as long as the count allows.
        """
        wait = self.expected_wait_s()
        if self._in_flight >= self._most or (wait is not None and wait > self._max_wait_s):
            raise Overloaded(FULL, retry_after=self._retry_after(wait))
        self._change(self._in_flight + 1)
        return Place(self._leave)

    def _leave(self, finished: bool) -> None:
        self._pace.move_to(self._clock.monotonic())
        if finished:
            self._pace.completed()
        self._change(self._in_flight - 1)

    def _change(self, in_flight: int) -> None:
        self._in_flight = in_flight
        capacity = self._capacity() or math.inf  # without a replica nothing is slow yet
        self._pace.turn(self._clock.monotonic(), saturated=in_flight >= capacity)

    def _retry_after(self, wait: float | None) -> float:
        """When the queue is short enough again, and those sent away before have had their turn.

        Without the turns a crowd would come back at one moment. Nobody need come back, so they add `max_wait_s` at most.
        """
        now, rate = self._clock.monotonic(), self._pace.rate()
        if rate is None:
            return _bounded(self._max_wait_s)
        too_many = (self._in_flight - self._most + 1) / rate
        too_slow = wait - self._max_wait_s if wait is not None else 0.0
        free = now + max(too_many, too_slow)
        turn = min(max(self._promised, free), free + self._max_wait_s)
        self._promised = turn + 1.0 / rate
        return _bounded(turn - now)


class Place:
    """One request's place in a `Gate`. As a context manager it leaves as not finished when an exception passes through."""

    def __init__(self, on_leave: Callable[[bool], None]) -> None:
        self._on_leave: Callable[[bool], None] | None = on_leave

    def leave(self, *, finished: bool = True) -> None:
        """Free the place; a second call does nothing. A client that left or an engine that broke has not `finished`: such
        an end says nothing of how fast the tier works."""
        on_leave, self._on_leave = self._on_leave, None
        if on_leave is not None:
            on_leave(finished)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave(finished=kind is None)


class Pace:
    """How many requests a second a tier finishes when it has all it can do. Owns at most `BUCKETS` counts.

    Only saturated time counts, so that a quiet hour does not read as slowness. The rate is that of the last `WINDOW_S` of it, or
    of longer where fewer than `STEADY` finished: twenty answers tell a rate to a quarter only.
    """

    WINDOW_S = 10.0
    STEADY = 40
    ENOUGH = 5  # fewer say nothing
    BUCKETS = 120
    BUCKET_S = 1.0
    SLOW_S = 60.0  # this long with fewer than `ENOUGH` is slow, not unknown
    FORGET_S = 300.0  # a tier that was not saturated for so long may be another one: scaled, or with other requests

    def __init__(self) -> None:
        self._buckets: deque[tuple[float, int]] = deque(maxlen=self.BUCKETS)  # saturated seconds, and what finished in them
        self._at = -math.inf
        self._saturated = False

    def turn(self, now: float, *, saturated: bool) -> None:
        """From `now` on the tier is saturated, or not."""
        if saturated is self._saturated:
            return
        self.move_to(now)
        if saturated and now - self._at > self.FORGET_S:
            self._buckets.clear()
        self._saturated, self._at = saturated, now

    def move_to(self, now: float) -> None:
        """Count the time until `now`, if it was saturated."""
        if not self._saturated or now <= self._at:
            return
        seconds, finished = self._buckets.pop() if self._buckets and self._buckets[-1][0] < self.BUCKET_S else (0.0, 0)
        self._buckets.append((seconds + now - self._at, finished))
        self._at = now

    def completed(self) -> None:
        """One more finished, in the time that was counted last."""
        if self._saturated and self._buckets:
            seconds, finished = self._buckets.pop()
            self._buckets.append((seconds, finished + 1))

    def rate(self) -> float | None:
        """Requests a second, above 0; None while too little was seen."""
        seconds, count = 0.0, 0
        for bucket_s, finished in reversed(self._buckets):
            seconds, count = seconds + bucket_s, count + finished
            if seconds >= self.WINDOW_S and count >= self.STEADY:
                break
        seen = seconds >= self.BUCKET_S and (count >= self.ENOUGH or seconds >= self.SLOW_S)
        return max(count, 1) / seconds if seen else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, SHORTEST_RETRY_S), LONGEST_RETRY_S)
