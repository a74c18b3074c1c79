"""Is an answer right? Pure: bytes and headers in, a verdict out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from serve_app.domain import Json
from tests.chaos.requests import MODELS, Ask

DONE = "[DONE]"
LEAKS = (
    "Traceback",
    'File "',
    ".py",
    "site-packages",
    "RayTaskError",
    "RayActorError",
    "ActorDiedError",
    "ActorUnavailable",
    "secret internal",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw of one request. Times are seconds; `sent` counts from the start of the traffic."""

    part: str
    stream: bool
    sent: float
    seconds: float
    status: int | None = None  # None: no answer came
    error: str | None = None  # OpenAI's code, or what broke the connection
    tier: str | None = None
    reason: str | None = None
    attempts: int = 1
    decision_id: str | None = None
    complete: bool = False  # a plain body, or a stream with its [DONE]
    hung: bool = False  # the client's own deadline ended it
    wrong: str | None = None  # what is wrong about an answer that claims to be right
    retry_after: str | None = None
    states: tuple[str, str] = ("", "")  # embedding, assessment

    @property
    def ok(self) -> bool:
        return self.status == 200 and self.complete and self.error is None and not self.hung

    @property
    def retried(self) -> bool:
        return self.attempts > 1

    @property
    def degraded(self) -> bool:
        """Answered, but not as it would have been: another tier, or a score without one of its signals."""
        marked = self.reason in ("fallback_engine_error", "tier_unavailable", "degraded", "fallback_router_error")
        return self.ok and (marked or bool({"late", "failed"} & set(self.states)))

    @property
    def kind_of_failure(self) -> str:
        return "hung" if self.hung else f"{self.status or 'none'} {self.error or 'truncated'}"


@dataclass(frozen=True, slots=True)
class Reply:
    """The raw answer."""

    status: int
    headers: Mapping[str, str]
    text: str
    broken: str | None = None


def judge(ask: Ask, reply: Reply, sent: float, seconds: float) -> Answer:
    """Read an answer as a client does. A claim that does not hold is `wrong`; a refusal in OpenAI's shape is not."""
    payloads = _payloads(reply.text) if reply.headers.get("content-type", "").startswith("text/event-stream") else None
    parsed = [item for item in payloads if isinstance(item, dict)] if payloads is not None else [_object(reply.text)]
    receipt = next((item["tierwise"] for item in reversed(parsed) if isinstance(item.get("tierwise"), dict)), {})
    error = reply.broken or next((_code(item["error"]) for item in parsed if "error" in item), None)
    complete = DONE in payloads if payloads is not None else bool(parsed[0]) and reply.broken is None
    if reply.status != 200 and error is None:
        error = f"not OpenAI's: {reply.text[:60]!r}"
    signals = receipt.get("signals") or {}
    answer = Answer(
        part=ask.part,
        stream=ask.stream,
        sent=sent,
        seconds=seconds,
        status=reply.status,
        error=error,
        tier=receipt.get("tier") or reply.headers.get("x-tierwise-tier"),
        reason=receipt.get("reason") or reply.headers.get("x-tierwise-reason"),
        attempts=receipt.get("attempts") or 1,
        decision_id=reply.headers.get("x-tierwise-decision-id"),
        complete=complete,
        retry_after=reply.headers.get("retry-after"),
        states=(str(signals.get("embedding", {}).get("state", "")), str(signals.get("assessment", {}).get("state", ""))),
    )
    leak = next((f"internal text: {word}" for word in LEAKS if word in reply.text), None)
    return replace(answer, wrong=leak or wrong(ask, reply, parsed, receipt, answer))


def wrong(ask: Ask, reply: Reply, parsed: list[Json], receipt: Json, answer: Answer) -> str | None:
    """The first claim of the answer that does not hold, or None."""
    if reply.status != 200 or (ask.expected is None and "choices" not in reply.text):
        return None
    tier = reply.headers.get("x-tierwise-tier")
    if tier not in MODELS:
        return f"tier {tier} in the headers"
    if any("choices" in item and not isinstance(item["choices"], list) for item in parsed):
        return "a chunk that is none"
    models = {item.get("model") for item in parsed if "choices" in item}
    if models - {MODELS[tier]}:
        return f"tier {tier}, but models {models}"
    if answer.ok and (receipt.get("tier"), receipt.get("decision_id")) != (tier, answer.decision_id):
        return f"tier {tier} of {answer.decision_id} in the headers, {receipt.get('tier')} of {receipt.get('decision_id')} in the receipt"
    return _wrong_words(ask, tier, _content(parsed), complete=answer.ok) or _wrong_choice(receipt)


def _wrong_words(ask: Ask, tier: str, content: str, *, complete: bool) -> str | None:
    if ask.expected is None:
        return None
    right = ask.expected(tier)
    fits = content == right if complete else right.startswith(content)
    return None if fits else f"expected {right!r}, got {content!r}"


def _wrong_choice(receipt: Json) -> str | None:
    """A score and its reason must agree."""
    reason, score = receipt.get("reason"), receipt.get("score")
    if reason not in ("score_above", "score_below") or score is None:
        return None
    agrees = (score >= receipt["threshold"]) == (reason == "score_above")
    return None if agrees else f"{reason} at {score}"


def _content(parsed: list[Json]) -> str:
    parts = []
    for item in parsed:
        for choice in item.get("choices") or []:
            said = choice.get("delta") or choice.get("message") or {}
            parts.append(said.get("content") or choice.get("text") or "")
    return "".join(parts)


def _payloads(text: str) -> list[str | Json]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [line if line == DONE else _object(line) for line in lines]


def _object(text: str) -> Json:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _code(error: object) -> str:
    return str(error.get("code") or error.get("type")) if isinstance(error, dict) else "no openai error"
