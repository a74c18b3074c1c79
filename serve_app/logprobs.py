"""Log-probabilities in an engine's answer: read, and cut out again for a client that did not ask for them. Pure.

As in `stream.py` the text of an event is cut, not written anew: what stays is the engine's own, to the byte. In valid JSON a quote
right after a comma or a brace opens a key, since inside a string it would be escaped. So a key can be found in the text. Where its
value ends cannot be: a token may be a brace or a quote. That is left to the JSON scanner. A broken event is passed on as it came.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from serve_app.domain import Json

FLOOR = -100.0  # vLLM writes -9999 for what cannot be; one such token would drown all others in a mean
_KEY = re.compile(r'[,{]\s*"logprobs"\s*:\s*(?=\{)')
_NAME = '"logprobs"'
_SCANNER = json.JSONDecoder()
_UNREADABLE = (KeyError, IndexError, TypeError, AttributeError, ValueError)


class TokenLogprob(NamedTuple):
    """One sampled token. `lead` is over the best other candidate: negative when that one was likelier, 0 when none was given."""

    logprob: float
    lead: float


def of_events(events: str) -> list[TokenLogprob]:
    """The tokens of one or more whole events; a broken event gives none."""
    chunks = (_parsed(item) for item in events.split("\n\n") if _NAME in item)
    return [token for chunk in chunks if chunk is not None for token in of_body(chunk)]


def of_body(body: Mapping[str, Any]) -> list[TokenLogprob]:
    """The tokens of the first choice of a chunk or a plain answer; none when it has another form.

    A token of which the engine says nothing is left out.
    """
    try:
        found = body["choices"][0]["logprobs"]
        return _of_chat(found["content"]) if "content" in found else _of_completion(found)
    except _UNREADABLE:
        return []


def without(events: str) -> str:
    """One or more whole events with null, which vLLM writes when nobody asks, in the place of log-probabilities."""
    if _NAME not in events:
        return events
    return "\n\n".join(_cut(item) for item in events.split("\n\n"))


def strip(body: Json) -> Json:
    """A plain answer without log-probabilities: there nothing is written when nobody asks. `body` stays as it is."""
    choices = body.get("choices")
    if not isinstance(choices, list):
        return body
    return {**body, "choices": [_stripped(choice) for choice in choices]}


def _stripped(choice: Any) -> Any:
    return {key: value for key, value in choice.items() if key != "logprobs"} if isinstance(choice, dict) else choice


def _cut(item: str) -> str:
    pieces, kept = [], 0
    try:
        while (key := _KEY.search(item, kept)) is not None:
            _, end = _SCANNER.raw_decode(item, key.end())
            pieces.append(item[kept : key.end()])
            kept = end
    except (ValueError, RecursionError):
        return item
    rest = "null".join([*pieces, item[kept:]])
    return rest if pieces and _parsed(rest) is not None else item  # the object was read already: only what is around it is left


def _parsed(item: str) -> Json | None:
    if not item.startswith("data: {"):
        return None
    try:
        chunk: Json = json.loads(item.removeprefix("data: "))
    except (ValueError, RecursionError):
        return None
    return chunk


def _of_chat(entries: Iterable[Mapping[str, Any]]) -> list[TokenLogprob]:
    found = []
    for entry in entries:
        candidates = [(other.get("token"), other.get("logprob")) for other in entry.get("top_logprobs") or ()]
        found += _token(entry.get("token"), entry.get("logprob"), candidates)
    return found


def _of_completion(logprobs: Mapping[str, Any]) -> list[TokenLogprob]:
    values = logprobs["token_logprobs"]
    texts = logprobs.get("tokens") or [None] * len(values)
    tops = logprobs.get("top_logprobs") or [None] * len(values)
    return [
        token
        for text, value, top in zip(texts, values, tops, strict=True)
        for token in _token(text, value, list(top.items()) if top else [])
    ]


def _token(text: object, logprob: object, candidates: list[tuple[Any, Any]]) -> list[TokenLogprob]:
    """One token, or none. The sampled token is one of its candidates, and only once: others may read the same."""
    own = _clamped(logprob)
    if own is None:
        return []
    others = list(candidates)
    if (text, logprob) in others:
        others.remove((text, logprob))
    known = [value for _, other in others if (value := _clamped(other)) is not None]
    return [TokenLogprob(own, own - max(known) if known else 0.0)]


def _clamped(value: object) -> float | None:
    """Between `FLOOR` and 0; not a number, as JSON knows it, is the worst there is. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return FLOOR if value != value else max(FLOOR, min(0.0, value))  # noqa: PLR0124 - only not-a-number differs from itself
