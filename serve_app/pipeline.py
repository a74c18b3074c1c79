"""The path of a request: score -> decide -> generate -> stream -> record. No ray, no vllm, no HTTP."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Set
from dataclasses import dataclass, replace

from serve_app import errors, logprobs
from serve_app.attempts import Attempts, Opening, outcome_of
from serve_app.domain import NO_SCORE, Decision, Json, Outcome, Reason, Request, Tier
from serve_app.guard import Guard, Verdict
from serve_app.mirror import MAX_EVENTS, Mirror
from serve_app.ports import Clock, Engines, Observer
from serve_app.recorder import Recorder
from serve_app.routing import conversation, policy
from serve_app.scoring import Scorer
from serve_app.settings import Live
from serve_app.stream import BROKEN_STREAM, EventStream, summary, usage_of
from serve_app.trip import Trip
from serve_app.waking import Waking

OF_THE_TURN = (Reason.SCORE_ABOVE, Reason.SCORE_BELOW, Reason.CAPACITY, Reason.NOVELTY, Reason.CONVERSATION)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InForce:
    """What `reconfigure` replaces as a whole: live settings, the policy made of them, who scores, and the hash of all settings.

    The policy's threshold and the scorer come from one calibration: a request takes both together, and keeps them.
    """

    live: Live
    policy: policy.Policy
    scorer: Scorer
    settings: str = ""


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
        guard: Guard,
        attempts: Attempts,
        recorder: Recorder,
        mirror: Mirror,
        engines: Engines,
        observer: Observer,
        clock: Clock,
        in_force: Callable[[], InForce],
        waking: Waking,
    ) -> None:
        self._guard = guard
        self._attempts = attempts
        self._recorder = recorder
        self._mirror = mirror
        self._engines = engines
        self._observer = observer
        self._clock = clock
        self._in_force = in_force
        self._waking = waking

    async def answer(self, request: Request) -> Answer:
        """Answer one request. Raises the errors of `errors.py`; every request that was decided is recorded once.

        A client that leaves while it is scored has got no decision and cost nothing: there is nothing to record.
        """
        created, started = self._clock.now(), self._clock.monotonic()
        decision = await self.decide(request)
        if decision.reason is Reason.TIER_UNAVAILABLE and self._waking.sleeps(decision.tier.other):
            self._waking.rouse(decision.tier.other)  # this request goes without it, the next ones need not
        trip = Trip(request, decision, created, started, overhead=self._clock.monotonic() - started)
        try:
            opening = await self._attempts.open(trip)
        except BaseException as error:
            self._recorder.finish(trip, outcome_of(error))
            raise
        finally:
            self._observer.decided(trip.decision)
        mirrored = self._mirror.wants(request, trip.decision, self._in_force().live.mirror_share)
        if isinstance(opening.given[0], dict):
            return await self._plain(trip, opening.given[0], opening, mirrored=mirrored)
        events = self._relay(trip, opening, mirrored=mirrored)
        await anext(events)  # started here: closing a generator that never ran would neither stop the engine nor record
        return Answer(trip.decision, trip.attempt.model, trip.overhead, events=events)

    async def decide(self, request: Request) -> Decision:
        """The router's decision, and what shadow or canary mode makes of it."""
        return await self._decide(request, self._in_force())

    async def explain(self, request: Request) -> Decision:
        """What `decide` would say, with the score even where a rule decides: a dry run."""
        now = self._in_force()
        decision = await self._decide(request, now)
        if decision.score is not NO_SCORE:
            return decision
        return replace(decision, score=await now.scorer.score(request.text, now.live, decision.threshold))

    async def _decide(self, request: Request, now: InForce) -> Decision:
        decision = policy.in_mode(await self._route(request, now), request, now.live, self._available())
        return replace(decision, reason=Reason.TOOL_LOOP) if request.tool_loop and decision.reason in OF_THE_TURN else decision

    async def _route(self, request: Request, now: InForce) -> Decision:
        started = self._clock.monotonic()
        verdict = await self._guard.check(request)
        guarded = self._clock.monotonic() - started
        decision = await self._choose(request, now, verdict)
        own = request.threshold is not None
        return replace(decision, guard_seconds=guarded, settings=now.settings, own_threshold=own)

    async def _choose(self, request: Request, now: InForce, verdict: Verdict) -> Decision:
        if verdict.reason is not None and request.explicit_tier is None:
            threshold = now.policy.effective_threshold(request)
            return Decision(verdict.tiers[0], verdict.reason, threshold, features=request.features, allowed=verdict.tiers)
        available = self._available() & set(verdict.tiers)
        early = policy.decide_early(now.policy, request, available)
        if early is not None:
            return replace(early, allowed=verdict.tiers)
        threshold = now.policy.static_threshold(request)
        score = await now.scorer.score(request.text, now.live, threshold)
        decision = policy.decide(policy.of_the_turn(now.policy, request), request, score, available)
        if decision.tier is Tier.SMALL:
            started = self._clock.monotonic()
            before = await self._hardest_before(request, now, threshold)
            decision = policy.in_conversation(decision, before, set(verdict.tiers))
            decision = replace(decision, conversation_seconds=self._clock.monotonic() - started)
        return _where_there_is_one(decision, available)

    async def _hardest_before(self, request: Request, now: InForce, threshold: float) -> float | None:
        """The hardest of the turns that still count; code and mathematics need no model."""
        live = now.live
        turns = request.earlier[-live.conversation_turns :] if live.conversation_turns else ()
        if any(conversation.needs_no_score(turn, math_code_heuristic=live.math_code_heuristic) for turn in turns):
            return conversation.HARDEST
        scores = await asyncio.gather(*(now.scorer.score(turn, live, threshold) for turn in turns))
        return conversation.hardest([policy.standing(now.policy, request, score) for score in scores])

    def _available(self) -> frozenset[Tier]:
        return frozenset(tier for tier in self._engines if self._waking.available(tier))

    def waiting(self, tier: Tier) -> int:
        """Requests that wait here for a sleeping tier to have a replica."""
        return self._waking.waiting(tier)

    async def _plain(self, trip: Trip, body: Json, opening: Opening, *, mirrored: bool) -> Answer:
        if trip.watch is not None:
            body = logprobs.strip(body)
        trip.attempt = replace(trip.attempt, usage=usage_of(body))
        self._recorder.end_attempt(trip, Outcome.OK)
        record = self._recorder.finish(trip, Outcome.OK)
        await opening.rest.aclose()
        if mirrored:
            self._mirror.offer(trip.request, trip.decision, body, trip.created)
        body = {**body, "tierwise": summary(record)}
        return Answer(record.decision, trip.attempt.model, trip.overhead, body=body)

    async def _relay(self, trip: Trip, opening: Opening, *, mirrored: bool) -> AsyncGenerator[str]:
        """Pass the engine's events on; the last one carries the receipt. An error after the first byte is an event too.

        The first item is empty: it starts the generator.
        """
        events, heard = self._event_stream(trip), Heard() if mirrored else None
        trip.attempt = replace(trip.attempt, first_token=self._clock.monotonic() - trip.started)
        outcome, message, watched = Outcome.CANCELLED, None, trip.watch is not None
        chunk: str | Json = "".join(item for item in opening.given if isinstance(item, str))
        try:
            yield ""
            while not events.done:
                came = chunk if isinstance(chunk, str) else ""
                came = logprobs.without(came) if watched else came
                if heard is not None:
                    heard.add(came)
                if text := events.feed(came):
                    yield text
                if not events.done:
                    chunk = await self._attempts.next(trip, opening.rest)
            events.check()
            outcome = Outcome.OK
        except Exception as error:  # noqa: BLE001 - the status went out: whatever broke is told in an error event, and recorded
            outcome, message = outcome_of(error), _told(error)
            self._attempts.broke(trip, error)
        finally:
            await opening.rest.aclose()
            trip.attempt = replace(trip.attempt, usage=events.usage())
            self._recorder.end_attempt(trip, outcome, message)
            record = self._recorder.finish(trip, outcome)
        if heard is not None and outcome is Outcome.OK:
            self._mirror.offer(trip.request, trip.decision, heard.text(), trip.created)
        yield events.end(summary(record), message)

    def _event_stream(self, trip: Trip) -> EventStream:
        request, tier = trip.request, trip.attempt.tier
        return EventStream(
            include_usage=request.include_usage,
            choices=int(request.body.get("n") or 1),
            skipped=lambda: self._observer.skipped_chunk(tier),
        )


def _where_there_is_one(decision: Decision, available: Set[Tier]) -> Decision:
    """The other tier where the chosen one has no replica: what a conversation needs is not dropped in silence."""
    if decision.tier in available or decision.tier.other not in available:
        return decision
    return replace(decision, tier=decision.tier.other, reason=Reason.TIER_UNAVAILABLE)


class Heard:
    """A stream's events, kept for a mirror; bounded."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    def add(self, text: str) -> None:
        if self._size < MAX_EVENTS:
            self._parts.append(text)
            self._size += len(text)

    def text(self) -> str:
        return "".join(self._parts)


def _told(error: Exception) -> str:
    """What the client is told of an error inside a stream; an error that is not ours is a bug, and logged as one."""
    if isinstance(error, errors.TierwiseError):
        return error.message
    log.error("a stream broke off", exc_info=error)
    return BROKEN_STREAM
