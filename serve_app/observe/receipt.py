"""A record as plain data: what the ledger stores and `/v1/decisions/{id}` answers. Pure."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

from serve_app.domain import Decision, Feedback, Json, MirrorPair, Record

PROMPT = "prompt"
MAX_PROMPT_BYTES = 256 * 1024
# What goes to the ledger: a receipt, perhaps with its prompt, two answers to one prompt, or what somebody thinks of an answer.
Row = Json | MirrorPair | Feedback


def receipt(record: Record) -> Json:
    """All of the record with what follows from it, but never its prompt."""
    data: Json = {name: plain(getattr(record, name)) for name in _names(Record) if name != PROMPT}
    data["saved_usd"] = record.saved_usd
    data["decision"] |= _derived(record.decision)
    data["usage"] = {**plain(record.usage), "total_tokens": record.usage.total_tokens}
    return data


def decided(decision: Decision) -> Json:
    """A decision as a receipt holds it."""
    return {**plain(decision), **_derived(decision)}


def _derived(decision: Decision) -> Json:
    return {"margin": decision.margin, "allowed": [tier.value for tier in decision.allowed]}


def plain(value: object) -> Any:
    """As `dataclasses.asdict`, without its copies of what never changes: those were most of what a record cost its ingress."""
    if names := _names(type(value)):  # type: ignore[arg-type]  # a class is hashable
        return {name: plain(getattr(value, name)) for name in names}
    return tuple(map(plain, value)) if type(value) is tuple else value


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def row(record: Record) -> Json:
    """What the ledger gets: the receipt and beside it, where prompts are stored, the request's body."""
    return receipt(record) if record.prompt is None else {**receipt(record), PROMPT: dict(record.prompt)}


def shown(stored: Json) -> Json:
    """A ledger's row without its prompt: a receipt is the same before and after it is written."""
    return {name: value for name, value in stored.items() if name != PROMPT}


def scrubbed(stored: Json) -> Json:
    """Without what leads back to a person: no prompt, no session, no hash of the prompt. The account stays."""
    return {**shown(stored), "session": None, "prompt_hash": ""}


def without_large_prompt(record: Record) -> Record:
    """A prompt above `MAX_PROMPT_BYTES` (a pasted book, an image) is not stored; its record is."""
    return replace(record, prompt=None) if record.prompt is not None and weight(record.prompt) > MAX_PROMPT_BYTES else record


def weight(value: object) -> int:
    """About the bytes of the text in a value of JSON. Not recursive: a client chooses how deep its body is."""
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item) if item.isascii() else len(item.encode("utf-8", "surrogatepass"))
        elif isinstance(item, Mapping):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            rest += item
        else:
            total += 8
    return total


def held_bytes(item: Record | Row) -> int:
    """What an item that waits holds of a client's text; the rest of it is bounded by the number of items."""
    if isinstance(item, MirrorPair):
        return weight([item.prompt, item.answer, item.mirror_answer])
    if isinstance(item, Feedback):
        return 0 if item.comment is None else weight(item.comment)
    prompt: Any = item.prompt if isinstance(item, Record) else item.get(PROMPT)
    return 0 if prompt is None else weight(prompt)


def id_of(item: Record | Row) -> str:
    """A pair's is its decision's with `-m`, and feedback's has the key in it: all of them may wait at the same time."""
    if isinstance(item, MirrorPair):
        return f"{item.decision_id}-m"
    if isinstance(item, Feedback):
        return f"{item.decision_id}-f-{item.by or ''}"
    return item.id if isinstance(item, Record) else str(item["id"])
