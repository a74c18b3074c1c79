"""From a decision to the first byte: one attempt after another, until one may answer. Early exit is one more reason for another."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace

from serve_app import errors, logprobs
from serve_app.admission import Gate
from serve_app.domain import Json, Outcome, Tier
from serve_app.failover import Admission, Failover
from serve_app.observe.tracing import traceparent
from serve_app.ports import Clock, Engines, Observer
from serve_app.recorder import Recorder
from serve_app.routing import cascade
from serve_app.settings import EarlyExit, Timeouts
from serve_app.stream import FINISHED, raise_if_error, usage_so_far
from serve_app.trip import Trip
from serve_app.waking import Waking

Generation = AsyncGenerator[str | Json]


@dataclass(frozen=True, slots=True)
class Opening:
    """An attempt that answers: what it has given so far, and where the rest comes from."""

    given: tuple[str | Json, ...]
    rest: Generation


class Attempts:
    """Owns nothing: breakers and the retry budget belong to `Failover`, places before a tier to its `Gate`."""

    def __init__(
        self,
        *,
        engines: Engines,
        failover: Failover,
        gates: Mapping[Tier, Gate],
        timeouts: Timeouts,
        recorder: Recorder,
        observer: Observer,
        clock: Clock,
        early_exit: Callable[[], EarlyExit],
        waking: Waking,
    ) -> None:
        self._engines = engines
        self._failover = failover
        self._gates = gates
        self._timeouts = timeouts
        self._recorder = recorder
        self._observer = observer
        self._clock = clock
        self._early_exit = early_exit
        self._waking = waking

    async def open(self, trip: Trip) -> Opening:
        """Start the chosen tier, and what `failover` names after a fault or a doubt. Nothing has gone out yet.

        Raises the errors of `errors.py` when nobody may answer; every attempt is closed and recorded by then.
        """
        trip.admit(self._failover.begin(trip.decision))
        while True:
            await self._awake(trip)
            generation, started = None, self._clock.monotonic()
            given: list[str | Json] = []
            try:
                generation = self._start(trip)
                given.append(await self.next(trip, generation, first=True))
                raise_if_error(given[0])
                self._failover.report(trip.admission, None)
                again = self._escalation(trip) if await self._doubted(trip, given, generation) else None
                if again is None:
                    return Opening(tuple(given), generation)
                await self._close(trip, generation, given, Outcome.ESCALATED)
                self._observer.escalated()
                trip.admit(again)
            except BaseException as error:
                await self._close(trip, generation, given, outcome_of(error), error)
                trip.give_back()
                self._failover.report(trip.admission, self._blamed(error, started, stream=trip.request.stream))
                again = self._failover.after(trip.admission, error, len(trip.attempts)) if self.left(trip) > 0 else None
                if again is None:
                    raise
                await self._retry(trip, again)

    async def next(self, trip: Trip, generation: Generation, *, first: bool = False) -> str | Json:
        """The next item, inside its phase and the request's one deadline. Raises `EngineTimeout` or `EngineFailed`."""
        try:
            async with asyncio.timeout(self._seconds(trip, first=first)):
                return await anext(generation)
        except TimeoutError:
            raise errors.EngineTimeout("The model did not answer in time.") from None
        except StopAsyncIteration:
            raise errors.EngineFailed("The model ended without an answer.") from None

    def broke(self, trip: Trip, error: Exception) -> None:
        """Tell the tier's breaker of a fault after the first byte."""
        self._failover.report(trip.admission, error)

    def left(self, trip: Trip) -> float:
        """Seconds until the request's one deadline."""
        return self._timeouts.request_s - (self._clock.monotonic() - trip.started)

    def _seconds(self, trip: Trip, *, first: bool) -> float:
        """A plain answer is one item, the whole of it."""
        left = self.left(trip)
        if not trip.request.stream:
            return left
        return min(left, self._timeouts.first_token_s if first else self._timeouts.between_tokens_s)

    def _start(self, trip: Trip) -> Generation:
        tier, request = trip.decision.tier, trip.request
        engine = self._engines[tier]
        request_id = trip.start_attempt(engine.model, self._clock.monotonic() - trip.started)
        trip.place, trip.reserved = trip.reserved or self._gates[tier].enter(), None
        body = {**request.body, "model": engine.model, "stream": request.stream}
        if request.stream:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        if cascade.watches(request, trip.decision, self._early_exit()):
            trip.watch = cascade.Watch(self._early_exit().tokens if request.stream else None)
            body = cascade.asked(request.kind, body)
        trace = traceparent(request.trace, request.id, len(trip.attempts))
        return engine.generate(request.kind, body, request_id=request_id, session=request.affinity, trace=trace)

    async def _awake(self, trip: Trip) -> None:
        """Wait for a tier that sleeps. That is no attempt: nothing was asked of it, and its breaker hears of no fault."""
        try:
            await self._waking.awake(trip.decision.tier, self.left(trip))
        except BaseException as error:
            trip.give_back()
            self._failover.report(trip.admission, error)
            raise

    async def _doubted(self, trip: Trip, given: list[str | Json], generation: Generation) -> bool:
        """Hold the answer's first tokens back until they tell whether the model is sure. `given` grows by what came."""
        if trip.watch is None:
            return False
        item = given[0]
        while True:
            trip.watch.add(logprobs.of_body(item) if isinstance(item, dict) else logprobs.of_events(item))
            if isinstance(item, dict) or trip.watch.full or FINISHED in item:
                return cascade.doubts(trip.watch.confidence(), self._early_exit(), whole=isinstance(item, dict))
            item = await self.next(trip, generation)
            given.append(item)

    def _escalation(self, trip: Trip) -> Admission | None:
        """None when the large tier rests, sleeps or is full: then a doubtful answer is better than none."""
        if self._waking.sleeps(Tier.LARGE):
            self._waking.rouse(Tier.LARGE)
            return None
        try:
            place = self._gates[Tier.LARGE].enter()
        except errors.Overloaded:
            return None
        again = self._failover.escalated(trip.admission)
        if again is None:
            place.leave(finished=False)
            return None
        trip.reserved = place
        return again

    async def _close(
        self, trip: Trip, generation: Generation | None, given: list[str | Json], outcome: Outcome, error: BaseException | None = None
    ) -> None:
        if generation is not None:
            await generation.aclose()
        usage, complete = usage_so_far(given)
        trip.attempt = replace(trip.attempt, usage=usage)
        self._recorder.end_attempt(trip, outcome, _kept(error), complete=complete)

    def _blamed(self, error: BaseException, started: float, *, stream: bool) -> BaseException:
        """Whoever leaves after a long silence has met a tier that hangs; whoever leaves early says nothing of it.

        A plain answer is silent until it is whole: there it takes as long as a first token may.
        """
        waited, silence = self._clock.monotonic() - started, self._timeouts.hung_s
        silence = silence if stream else max(silence, self._timeouts.first_token_s)
        hung = outcome_of(error) is Outcome.CANCELLED and waited >= silence
        return errors.EngineTimeout("The client left before the model answered.") if hung else error

    async def _retry(self, trip: Trip, again: Admission) -> None:
        """Another tier is asked at once, the same one after a pause."""
        same = again.decision.tier is trip.decision.tier
        trip.admit(again)
        if not same:
            self._observer.fell_back(again.decision.tier)
        else:
            self._observer.retried(again.decision.tier)
            try:
                await asyncio.sleep(self._failover.pause(len(trip.attempts)))
            except asyncio.CancelledError as error:
                self._failover.report(again, error)
                raise


def _kept(error: BaseException | None) -> str | None:
    """What a record says of an error. A refusal may quote the request, which is nobody's to keep: only its kind."""
    if isinstance(error, errors.RequestError):
        return error.code or type(error).__name__
    return error.message if isinstance(error, errors.TierwiseError) else None


def outcome_of(error: BaseException) -> Outcome:
    if isinstance(error, errors.EngineTimeout):
        return Outcome.TIMEOUT
    if isinstance(error, errors.RequestError):
        return Outcome.REJECTED
    if isinstance(error, errors.Overloaded):
        return Outcome.REFUSED
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Outcome.CANCELLED
    return Outcome.FAILED
