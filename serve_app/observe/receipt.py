"""A record as plain data: what the ledger stores and `/v1/decisions/{id}` answers. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from serve_app.domain import Decision, Json, MirrorPair, Record

PROMPT = "prompt"
MAX_PROMPT_BYTES = 256 * 1024
Row = Json | MirrorPair  # what goes to the ledger: a receipt, perhaps with its prompt, or two answers to one prompt


def receipt(record: Record) -> Json:
    """All of the record with what follows from it, but never its prompt."""
    data = asdict(replace(record, prompt=None))
    del data[PROMPT]
    data["saved_usd"] = record.saved_usd
    data["decision"] = decided(record.decision)
    data["usage"] = {**asdict(record.usage), "total_tokens": record.usage.total_tokens}
    return data


def decided(decision: Decision) -> Json:
    """A decision as a receipt holds it."""
    return {**asdict(decision), "margin": decision.margin, "allowed": [tier.value for tier in decision.allowed]}


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
    prompt: Any = item.prompt if isinstance(item, Record) else item.get(PROMPT)
    return 0 if prompt is None else weight(prompt)


def id_of(item: Record | Row) -> str:
    """A pair's is its decision's with `-m`: both may wait at the same time."""
    if isinstance(item, MirrorPair):
        return f"{item.decision_id}-m"
    return item.id if isinstance(item, Record) else str(item["id"])
