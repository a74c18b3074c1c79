"""Server-sent events between an engine and a client. Pure: strings in, strings out.

The engine is always asked for usage in every chunk, so that what reached us is counted when a client leaves. Clients that did
not ask must not see it. Parsing and writing each chunk anew would cost more than everything else on the path, so that the usage
is cut out of the text: inside a JSON string a quote is always escaped, so that `"usage":` can only be the key itself.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serve_app.domain import Json, Record, Usage
from serve_app.errors import EngineFailed, EngineRejected

log = logging.getLogger(__name__)
DONE = "data: [DONE]\n\n"
_USAGE = re.compile(r',"usage":(null|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_CHOICE = re.compile(r'"choices":\[\{"index":(\d+)')
_CHOICES = '"choices":['
_ERROR = '{"error"'
FINISHED = '"finish_reason":"'
_NO_CHOICES = '"choices":[]'
UNREADABLE = "The model's engine cannot read this request: a message or field has a form that it does not know."
MAX_CODE = 40
MOST_TOKENS = 2**31
BROKEN_STREAM = "The model's answer broke off."


def event(data: object) -> str:
    """One SSE event with `data` as compact JSON."""
    return f"data: {json.dumps(data, separators=(',', ':'), ensure_ascii=False)}\n\n"


def usage_of(body: Mapping[str, Any]) -> Usage:
    """The `usage` of an engine's answer or chunk; zeros where there is none."""
    usage = _object(body.get("usage"))
    details = _object(usage.get("prompt_tokens_details"))
    return Usage(
        prompt_tokens=_tokens(usage.get("prompt_tokens")),
        completion_tokens=_tokens(usage.get("completion_tokens")),
        cached_tokens=_tokens(details.get("cached_tokens")),
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _tokens(value: Any) -> int:
    """An engine may write anything; what is no count counts nothing."""
    return value if isinstance(value, int) and 0 <= value < MOST_TOKENS else 0


def summary(record: Record) -> Json:
    """The `tierwise` object of a body or of the last chunk."""
    decision, usage = record.decision, record.usage
    return {
        "decision_id": record.id,
        "tier": decision.tier.value,
        "model": record.attempts[-1].model if record.attempts else None,
        "score": decision.score.value,
        "threshold": decision.threshold,
        "reason": decision.reason.value,
        "attempts": len(record.attempts),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "total_tokens": usage.total_tokens,
        },
        "cost_usd": record.cost_usd,
        "saved_usd": record.saved_usd,
    }


def engine_error(error: Mapping[str, Any]) -> EngineRejected | EngineFailed:
    """The engine's own error as one of ours: its validation messages are for the client, its failures are not."""
    code = str(error.get("code") or "")
    if code.isdigit() and int(code) < 500:
        return EngineRejected(_for_client(str(error.get("message") or "The model refused the request.")), param=error.get("param"))
    log.warning("engine error %s", code[:MAX_CODE])  # its message may quote the prompt; the engine's own log has it
    return EngineFailed("The model failed to answer.")


def _for_client(message: str) -> str:
    """An engine's sentence, but not the report of its validator, which names classes that no client knows."""
    return UNREADABLE if "validation error" in message else message.splitlines()[0]


def raise_if_error(first: str | Json) -> None:
    """Raise what an engine reports as its first event: nothing went out yet, so that another tier can still answer."""
    if isinstance(first, str) and first.startswith(f"data: {_ERROR}"):
        try:
            error = json.loads(first.removeprefix("data: ").partition("\n\n")[0])["error"]
        except ValueError:
            error = {}
        raise engine_error(error if isinstance(error, dict) else {"message": error})


def usage_so_far(items: Sequence[str | Json]) -> tuple[Usage, bool]:
    """What the items of an attempt that nobody got had used, and whether the engine had ended it by itself."""
    if items and isinstance(items[-1], dict):
        return usage_of(items[-1]), True
    text = "".join(item for item in items if isinstance(item, str))
    events = EventStream(include_usage=False, skipped=lambda: None)
    events.feed(text)
    return events.usage(), FINISHED in text


class EventStream:
    """One stream's state: the last finishing chunk is held back, since the receipt goes into the last chunk sent.

    `choices` is the request's `n`: until its sum comes at the end, the engine counts each choice on its own.
    """

    def __init__(self, *, include_usage: bool, skipped: Callable[[], None], choices: int = 1) -> None:
        self._include_usage = include_usage
        self._skipped = skipped
        self._choices = choices
        self._held: str | None = None
        self._usages: dict[int, str] = {}
        self._usage_chunk: str | None = None
        self._failed = False
        self.done = False

    def feed(self, events: str) -> str:
        """Take one or more whole events of the engine, give what may go to the client now."""
        return "".join(self._one(item[6:]) for item in events.split("\n\n") if item.startswith("data: "))

    def usage(self) -> Usage:
        """What the engine counted so far: the sum in its usage chunk, otherwise what each choice's last chunk says."""
        if self._usage_chunk is not None and (total := _USAGE.search(self._usage_chunk)) is not None:
            return _counted(total[1])
        counted = {index: _counted(text) for index, text in self._usages.items()}
        prompts = {index // self._choices: usage.prompt_tokens for index, usage in counted.items()}
        return Usage(sum(prompts.values()), sum(usage.completion_tokens for usage in counted.values()))

    def check(self) -> None:
        """Raises `EngineFailed` when the engine reported an error in its stream."""
        if self._failed:
            raise EngineFailed(BROKEN_STREAM)

    def end(self, receipt: Json, error: str | None = None) -> str:
        """The rest of the stream: the held chunk, the receipt, `[DONE]`; after a failure an error event in OpenAI's shape."""
        if error is not None:
            failure = {"message": error, "type": "api_error", "param": None, "code": "engine_error"}
            return self._release() + event({"error": failure, "tierwise": receipt}) + DONE
        if self._include_usage and self._usage_chunk is not None:
            return self._release() + _with(self._usage_chunk, receipt) + DONE
        last = self._held if self._held is not None else '{"object":"chat.completion.chunk","choices":[]}'
        return _with(last, receipt) + DONE

    def _one(self, payload: str) -> str:
        if payload == "[DONE]":
            self.done = True
            return ""
        if payload.startswith(_ERROR):
            self._failed = self.done = True
            return ""
        if not (payload.startswith("{") and payload.endswith("}") and _CHOICES in payload and _is_json(payload)):
            self._skipped()
            return ""
        if _NO_CHOICES in payload:
            self._usage_chunk = payload
            return ""
        if (found := _USAGE.search(payload)) is not None and found[1] != "null":
            choice = _CHOICE.search(payload)
            self._usages[int(choice[1]) if choice is not None else 0] = found[1]
        payload = _USAGE.sub("", payload, count=1)
        released = self._release()
        if FINISHED in payload:
            self._held = payload
            return released
        return f"{released}data: {payload}\n\n"

    def _release(self) -> str:
        held, self._held = self._held, None
        return f"data: {held}\n\n" if held is not None else ""


def _is_json(payload: str) -> bool:
    """Four microseconds a chunk: what an SDK cannot read must not reach it."""
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return True


def _counted(text: str) -> Usage:
    """The counts in a piece cut out of a chunk; zeros when it is garbage, since a stream's end must not fail on it."""
    try:
        return usage_of({"usage": json.loads(text)})
    except (ValueError, RecursionError):
        return Usage()


def _with(payload: str, receipt: Json) -> str:
    return f'data: {payload[:-1]},"tierwise":{json.dumps(receipt, separators=(",", ":"))}}}\n\n'
