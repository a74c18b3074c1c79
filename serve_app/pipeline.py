"""The path of a request: score -> decide -> generate -> stream -> record. No ray, no vllm, no HTTP."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace

from serve_app import errors
from serve_app.domain import NO_SCORE, Attempt, Decision, Json, Outcome, Reason, Record, Request, Tier, Usage
from serve_app.failover import Admission, Failover
from serve_app.guard import Guard
from serve_app.observe import cost
from serve_app.ports import Clock, Engines, Ledger, Observer
from serve_app.routing import conversation, policy
from serve_app.scoring import Scorer
from serve_app.settings import Live, Timeouts, TokenPrice
from serve_app.stream import BROKEN_STREAM, EventStream, raise_if_error, summary, usage_of

OF_THE_TURN = (Reason.SCORE_ABOVE, Reason.SCORE_BELOW, Reason.CONVERSATION)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InForce:
    """What `reconfigure` replaces as a whole: live settings and the policy made of them."""

    live: Live
    policy: policy.Policy


@dataclass(frozen=True, slots=True)
class Answer:
    """Exactly one of `body` and `events` is set. Headers come from `decision`; they are final."""

    decision: Decision
    model: str
    overhead_seconds: float
    body: Json | None = None
    events: AsyncGenerator[str] | None = None


class Pipeline:
    """Owns the path, and nothing that outlives a request."""

    def __init__(
        self,
        *,
        scorer: Scorer,
        engines: Engines,
        prices: Mapping[Tier, TokenPrice],
        ledger: Ledger,
        observer: Observer,
        clock: Clock,
        timeouts: Timeouts,
        failover: Failover,
        guard: Guard,
        in_force: Callable[[], InForce],
        fingerprint: Callable[[str], str],
    ) -> None:
        self._scorer = scorer
        self._engines = engines
        self._prices = prices
        self._ledger = ledger
        self._observer = observer
        self._clock = clock
        self._timeouts = timeouts
        self._failover = failover
        self._guard = guard
        self._in_force = in_force
        self._fingerprint = fingerprint

    async def answer(self, request: Request) -> Answer:
        """Answer one request. Raises the errors of `errors.py`; every request that was decided is recorded once.

        A client that leaves while it is scored has got no decision and cost nothing: there is nothing to record.
        """
        created, started = self._clock.now(), self._clock.monotonic()
        decision = await self.decide(request)
        trip = _Trip(request, decision, created, started, overhead=self._clock.monotonic() - started)
        try:
            generation, first = await self._first_event(trip)
        except BaseException as error:
            self._observer.decided(trip.decision)
            self._finish(trip, _outcome_of(error))
            raise
        self._observer.decided(trip.decision)
        if isinstance(first, dict):
            return await self._plain(trip, first, generation)
        events = self._relay(trip, first, generation)
        await anext(events)  # started here: closing a generator that never ran would neither stop the engine nor record
        return Answer(trip.decision, trip.attempt.model, trip.overhead, events=events)

    async def decide(self, request: Request) -> Decision:
        now = self._in_force()
        threshold = now.policy.effective_threshold(request)
        verdict = await self._guard.check(request)
        if verdict.reason is not None and request.explicit_tier is None:
            return Decision(verdict.tiers[0], verdict.reason, threshold, features=request.features, allowed=verdict.tiers)
        early = policy.decide_early(now.policy, request, self._available())
        if early is not None:
            return replace(early, allowed=verdict.tiers)
        score = await self._scorer.score(request.text, now.live, threshold)
        decision = policy.decide(now.policy, request, score, self._available())
        if decision.reason is Reason.SCORE_BELOW:
            before = await self._hardest_before(request, now.live, threshold)
            decision = policy.in_conversation(decision, before, self._available())
        return replace(decision, reason=Reason.TOOL_LOOP) if request.tool_loop and decision.reason in OF_THE_TURN else decision

    async def _hardest_before(self, request: Request, live: Live, threshold: float) -> float | None:
        """The hardest of the turns that still count; code and mathematics need no model."""
        turns = request.earlier[-live.conversation_turns :] if live.conversation_turns else ()
        if any(conversation.needs_no_score(turn, math_code_heuristic=live.math_code_heuristic) for turn in turns):
            return conversation.HARDEST
        scores = await asyncio.gather(*(self._scorer.score(turn, live, threshold) for turn in turns))
        return conversation.hardest([score.value for score in scores])

    async def explain(self, request: Request) -> Decision:
        """What `decide` would say, with the score even where a rule decides: a dry run."""
        decision = await self.decide(request)
        if decision.score is not NO_SCORE:
            return decision
        return replace(decision, score=await self._scorer.score(request.text, self._in_force().live, decision.threshold))

    def _available(self) -> frozenset[Tier]:
        return frozenset(tier for tier, engine in self._engines.items() if engine.ready())

    async def _first_event(self, trip: "_Trip") -> tuple[AsyncGenerator[str | Json], str | Json]:
        """Start the chosen tier, and what `failover` names after a fault. After the first byte nothing is tried again."""
        trip.admit(self._failover.begin(trip.decision))
        while True:
            generation = self._start(trip, trip.decision.tier)
            try:
                first = await self._next(generation, self._first_s(trip))
                raise_if_error(first)
                self._failover.report(trip.admission, None)
                return generation, first
            except BaseException as error:
                await generation.aclose()
                self._close_attempt(trip, _outcome_of(error), error.message if isinstance(error, errors.TierwiseError) else None)
                self._failover.report(trip.admission, error)
                again = self._failover.after(trip.admission, error, len(trip.attempts)) if self._left(trip) > 0 else None
                if again is None:
                    raise
            await self._retry(trip, again)

    async def _retry(self, trip: "_Trip", again: Admission) -> None:
        """Another tier is asked at once, the same one after a pause."""
        self._observer.retried(again.decision.tier)
        same = again.decision.tier is trip.decision.tier
        trip.admit(again)
        if same:
            await asyncio.sleep(self._failover.pause(len(trip.attempts)))

    def _left(self, trip: "_Trip") -> float:
        """Seconds until the request's one deadline."""
        return self._timeouts.request_s - self._elapsed(trip)

    def _first_s(self, trip: "_Trip") -> float:
        """Seconds until the first item: a plain answer is one item, the whole of it."""
        left = self._left(trip)
        return min(left, self._timeouts.first_token_s) if trip.request.stream else left

    def _start(self, trip: "_Trip", tier: Tier) -> AsyncGenerator[str | Json]:
        engine = self._engines[tier]
        trip.attempt = Attempt(tier, engine.model, Outcome.FAILED, Usage(), 0.0, self._elapsed(trip), None, 0.0)
        request = trip.request
        body = {**request.body, "model": engine.model, "stream": request.stream}
        if request.stream:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        request_id = f"{request.id}-{len(trip.attempts)}"
        return engine.generate(request.kind, body, request_id=request_id, session=request.session)

    async def _next(self, generation: AsyncGenerator[str | Json], seconds: float) -> str | Json:
        try:
            async with asyncio.timeout(seconds):
                return await anext(generation)
        except TimeoutError:
            raise errors.EngineTimeout("The model did not answer in time.") from None
        except StopAsyncIteration:
            raise errors.EngineFailed("The model ended without an answer.") from None

    async def _plain(self, trip: "_Trip", body: Json, generation: AsyncGenerator[str | Json]) -> Answer:
        trip.attempt = replace(trip.attempt, usage=usage_of(body))
        self._close_attempt(trip, Outcome.OK)
        record = self._finish(trip, Outcome.OK)
        await generation.aclose()
        body = {**body, "tierwise": summary(record)}
        return Answer(record.decision, trip.attempt.model, trip.overhead, body=body)

    async def _relay(self, trip: "_Trip", first: str | Json, generation: AsyncGenerator[str | Json]) -> AsyncGenerator[str]:
        """Pass the engine's events on; the last one carries the receipt. An error after the first byte is an event too.

        The first item is empty: it starts the generator.
        """
        events = self._event_stream(trip)
        trip.attempt = replace(trip.attempt, first_token=self._elapsed(trip))
        outcome, message = Outcome.CANCELLED, None
        chunk: str | Json = first
        try:
            yield ""
            while not events.done:
                if text := events.feed(chunk if isinstance(chunk, str) else ""):
                    yield text
                if not events.done:
                    chunk = await self._next(generation, min(self._left(trip), self._timeouts.between_tokens_s))
            events.check()
            outcome = Outcome.OK
        except Exception as error:  # noqa: BLE001 - the status went out: whatever broke is told in an error event, and recorded
            outcome, message = _outcome_of(error), _told(error)
            self._failover.report(trip.admission, error)
        finally:
            await generation.aclose()
            trip.attempt = replace(trip.attempt, usage=events.usage())
            self._close_attempt(trip, outcome, message)
            record = self._finish(trip, outcome)
        yield events.end(summary(record), message)

    def _event_stream(self, trip: "_Trip") -> EventStream:
        request, tier = trip.request, trip.attempt.tier
        return EventStream(
            include_usage=request.include_usage,
            choices=int(request.body.get("n") or 1),
            skipped=lambda: self._observer.skipped_chunk(tier),
        )

    def _elapsed(self, trip: "_Trip") -> float:
        return self._clock.monotonic() - trip.started

    def _close_attempt(self, trip: "_Trip", outcome: Outcome, error: str | None = None) -> None:
        attempt = trip.attempt
        spent = cost.dollars(attempt.usage, self._prices[attempt.tier])
        trip.attempt = replace(attempt, outcome=outcome, error=error, cost_usd=spent, ended=self._elapsed(trip))
        trip.attempts = (*trip.attempts, trip.attempt)
        self._observer.attempted(trip.attempt)

    def _finish(self, trip: "_Trip", outcome: Outcome) -> Record:
        record = trip.record(outcome, self._elapsed(trip), self._prices, self._fingerprint)
        self._ledger.record(record)
        self._observer.finished(record)
        return record


class _Trip:
    """What one request gathers on its way; lives as long as the request and belongs to `Pipeline`."""

    def __init__(self, request: Request, decision: Decision, created: float, started: float, overhead: float) -> None:
        self.request = request
        self.decision = decision
        self.created = created
        self.started = started
        self.overhead = overhead
        self.admission: Admission
        self.attempt: Attempt
        self.attempts: tuple[Attempt, ...] = ()

    def admit(self, admission: Admission) -> None:
        self.admission, self.decision = admission, admission.decision

    def record(self, outcome: Outcome, elapsed: float, prices: Mapping[Tier, TokenPrice], fingerprint: Callable[[str], str]) -> Record:
        request = self.request
        return Record(
            id=request.id,
            created=self.created,
            kind=request.kind,
            stream=request.stream,
            decision=self.decision,
            outcome=outcome,
            attempts=self.attempts,
            cost_usd=cost.total(self.attempts),
            all_large_usd=cost.all_large(self.attempts, prices),
            overhead_seconds=self.overhead,
            total_seconds=elapsed,
            prompt_hash=fingerprint(request.text),
            prompt_chars=len(request.text),
            session=request.session,
        )


def _told(error: Exception) -> str:
    """What the client is told of an error inside a stream; an error that is not ours is a bug, and logged as one."""
    if isinstance(error, errors.TierwiseError):
        return error.message
    log.error("a stream broke off", exc_info=error)
    return BROKEN_STREAM


def _outcome_of(error: BaseException) -> Outcome:
    if isinstance(error, errors.EngineTimeout):
        return Outcome.TIMEOUT
    if isinstance(error, errors.RequestError):
        return Outcome.REJECTED
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Outcome.CANCELLED
    return Outcome.FAILED
