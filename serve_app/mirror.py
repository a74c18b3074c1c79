"""The other tier's answer to a share of the requests, for judging later. Never on a request's path: what has no place is shed.

What became of each request that could have been mirrored is counted: `not_sampled`, `unjudgeable` (no plain text to compare),
`shed` (the queue or the other tier is full), then `mirrored` or `failed`. The shares say what a judgement stands for.
"""

import asyncio
import contextlib
import json
import logging
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.domain import Decision, Json, Kind, MirrorPair, Mode, Reason, Request, Tier
from serve_app.errors import EngineFailed
from serve_app.observe import cost
from serve_app.observe.receipt import MAX_PROMPT_BYTES, weight
from serve_app.ports import Engine, Engines, Ledger, Observer
from serve_app.routing.policy import part_of
from serve_app.settings import MirrorSettings, TokenPrice
from serve_app.stream import usage_of

log = logging.getLogger(__name__)
MAX_TEXT = 256 * 1024  # characters of an answer: a cut one would be judged for what it lacks
MAX_EVENTS = 4 * 1024 * 1024  # characters of a raw stream
QUEUE_BYTES = 32 * 1024 * 1024  # of all that waits
MODES = (Mode.NORMAL, Mode.CANARY, Mode.SHADOW)
JUDGED = (
    Reason.SCORE_ABOVE,
    Reason.SCORE_BELOW,
    Reason.HEURISTIC_MATH_CODE,
    Reason.CONVERSATION,
    Reason.TOOL_LOOP,
    Reason.NOVELTY,
    Reason.CAPACITY,
    Reason.ESCALATED_LOW_CONFIDENCE,
)


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    decision: Decision
    answer: str | Json
    created: float
    size: int


class Mirror:
    """Owns the queue of answers that wait to be mirrored, bounded in number and bytes, and the workers that take from it."""

    def __init__(
        self,
        *,
        engines: Engines,
        prices: Mapping[Tier, TokenPrice],
        ledger: Ledger,
        observer: Observer,
        settings: MirrorSettings,
    ) -> None:
        self._engines = engines
        self._prices = prices
        self._ledger = ledger
        self._observer = observer
        self._settings = settings
        self._queue: asyncio.Queue[_Job] = asyncio.Queue(settings.queue)
        self._held = 0

    def wants(self, request: Request, decision: Decision, share: float) -> bool:
        """Whether this answer belongs to the sample. The same request always gets the same verdict.

        Only what the router decided is asked about, and only where the other tier may answer too.
        """
        if share <= 0 or not _decided_by_router(request, decision):
            return False
        if part_of(f"mirror {request.id}") < share:  # salted: canary mode cuts the same range
            return True
        self._observer.mirrored("not_sampled")
        return False

    def offer(self, request: Request, decision: Decision, answer: str | Json, created: float) -> None:
        """Hand over what the client got: a plain body, or a stream's raw events up to its `[DONE]`. Never waits, never raises.

        `created` is the request's arrival: what was deleted since then must not come back.
        """
        size = weight([request.body, answer])
        if not _judgeable(request, answer):
            self._observer.mirrored("unjudgeable")
        elif self._queue.full() or self._held + size > QUEUE_BYTES or self._busy(decision.tier.other):
            self._observer.mirrored("shed")
        else:
            self._held += size
            self._queue.put_nowait(_Job(request, decision, answer, created, size))

    async def run(self) -> None:
        """Work for ever. An engine that hangs holds `workers` generations at most, each for `timeout_s`."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._settings.workers):
                workers.create_task(self._work())

    def _busy(self, tier: Tier) -> bool:
        """Mirrors take only what is left over: a tier without a replica, or with a queue of its own, has nothing left."""
        load = self._engines[tier].load()
        return not self._engines[tier].ready() or (load is not None and load.waiting > 0)

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            try:
                self._observer.mirrored(await self._mirrored(job))
            except Exception as error:  # noqa: BLE001 - whatever an engine does, the next job has its turn
                log.warning("a mirror failed: %s", type(error).__name__)
                self._observer.mirrored("failed")
            finally:
                self._held -= job.size

    async def _mirrored(self, job: _Job) -> str:
        """What became of the job."""
        tier = job.decision.tier.other
        if self._busy(tier):  # it may have waited long
            return "shed"
        given = await asyncio.to_thread(text_of, job.request.kind, job.answer)
        if given is None:
            return "unjudgeable"
        async with asyncio.timeout(self._settings.timeout_s):
            body = await _generated(self._engines[tier], job.request)
        other = text_of(job.request.kind, body)
        if other is None:
            return "unjudgeable"
        pair = self._pair(job, given, body, other)
        self._observer.compared(pair, same=plain(given) == plain(other))
        self._ledger.mirrored(pair)
        return "mirrored"

    def _pair(self, job: _Job, given: str, body: Json, other: str) -> MirrorPair:
        request, tier = job.request, job.decision.tier
        usage = usage_of(body)
        return MirrorPair(
            decision_id=request.id,
            created=job.created,
            session=request.session,
            key=request.client.key,
            prompt=request.body,
            tier=tier,
            answer=given,
            mirror_tier=tier.other,
            mirror_model=self._engines[tier.other].model,
            mirror_answer=other,
            mirror_usage=usage,
            mirror_cost_usd=cost.dollars(usage, self._prices[tier.other]),
        )


async def _generated(engine: Engine, request: Request) -> Json:
    """The engine's plain answer. Without the session: a mirror must not push out what its replica has cached for clients."""
    body = {**request.body, "model": engine.model, "stream": False}
    async with contextlib.aclosing(engine.generate(request.kind, body, request_id=f"{request.id}-m")) as answer:
        async for item in answer:
            if isinstance(item, dict):
                return item
    raise EngineFailed("The model ended without an answer.")


def text_of(kind: Kind, answer: str | Json) -> str | None:
    """The text of a plain body or of a whole stream; None when there is none, it is too long, or the stream was cut off."""
    if isinstance(answer, dict):
        choice: Json = next(iter(answer.get("choices") or ()), {})
        text = _content(kind, choice, "message")
    else:
        text = "".join(_deltas(kind, answer)) if "data: [DONE]" in answer[-64:] else ""
    return text if text and len(text) <= MAX_TEXT else None


def plain(text: str) -> str:
    """A text without what says nothing: case, white space, and punctuation around words."""
    return " ".join(stripped for word in text.casefold().split() if (stripped := word.strip(string.punctuation)))


def _deltas(kind: Kind, events: str) -> Iterator[str]:
    for event in events.split("\n\n"):  # not by lines: Python knows more line breaks than SSE, and text may hold them
        if event.startswith("data: {"):
            try:
                choices = json.loads(event.removeprefix("data: ")).get("choices") or ()
            except ValueError:
                continue  # the client did not get it either
            yield from (_content(kind, choice, "delta") for choice in choices)


def _content(kind: Kind, choice: Mapping[str, Any], part: str) -> str:
    content = (choice.get(part) or {}).get("content") if kind == "chat" else choice.get("text")
    return content if isinstance(content, str) else ""


def _decided_by_router(request: Request, decision: Decision) -> bool:
    other = decision.tier.other
    allowed = other in decision.allowed and other in request.client.tiers
    return allowed and request.explicit_tier is None and decision.mode in MODES and decision.reason in JUDGED


def _judgeable(request: Request, answer: str | Json) -> bool:
    """One plain text each: no tools, no schema, no media, no choices beside each other, nothing above the bounds."""
    body, features = request.body, request.features
    single = (body.get("n") or 1) == 1 and isinstance(body.get("prompt", ""), str)
    shaped = (body.get("response_format") or {}).get("type", "text") != "text"
    plain = not (features.tools or features.json_schema or features.images or shaped or body.get("echo"))
    short = weight(body) <= MAX_PROMPT_BYTES and not (isinstance(answer, str) and len(answer) > MAX_EVENTS)
    return single and plain and short and all(_plain_message(message) for message in body.get("messages") or ())


def _plain_message(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    text = not isinstance(content, list) or all(part.get("type") == "text" for part in content)
    return text and message.get("role") not in ("tool", "function") and not message.get("tool_calls")
