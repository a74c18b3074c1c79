"""What a tier must be able to do for a request, before any score. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.domain import Features, Tier
from serve_app.settings import Supports

TEMPLATE_TOKENS = 256  # what a chat template adds at most: headers, a date, the instructions around tools


@dataclass(frozen=True, slots=True)
class TierLimits:
    """`context` is in tokens; None is unknown, and then the engine decides."""

    context: int | None
    supports: Supports


@dataclass(frozen=True, slots=True)
class Counted:
    """A prompt's exact length in one tier's tokens, and what the answer may add."""

    prompt: int
    answer: int

    def fits(self, context: int | None) -> bool:
        return context is None or self.prompt + self.answer <= context


def lacks(body: Mapping[str, Any], features: Features, supports: Supports) -> list[str]:
    """What the request asks for and the tier cannot do, in words for the client."""
    asked = {
        "tools": features.tools and not supports.tools,
        "JSON schemas": features.json_schema and not supports.json_schema,
        "images": features.images and not supports.images,
        "log-probabilities": bool(body.get("logprobs")) and not supports.logprobs,
        f"n > {supports.max_n}": (body.get("n") or 1) > supports.max_n,
    }
    return [what for what, missing in asked.items() if missing]


def answer_tokens(body: Mapping[str, Any]) -> int:
    """Tokens that the answer may take; at least one."""
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 1)


def at_most_tokens(body: Mapping[str, Any]) -> int:
    """A bound on prompt and answer without counting: a token of a byte-level tokenizer is at least one byte."""
    read = {key: body.get(key) for key in ("messages", "prompt", "tools")}
    size = len(json.dumps(read, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return size + TEMPLATE_TOKENS + answer_tokens(body)


def too_long(counted: Mapping[Tier, Counted], limits: Mapping[Tier, TierLimits]) -> str:
    """The message for a request that fits nowhere: its numbers and what would fit."""
    longest = max(counted.values(), key=lambda count: count.prompt)
    contexts = " and ".join(f"{limits[tier].context} ({tier.value})" for tier in counted)
    return (
        f"The prompt has {longest.prompt} tokens and the answer may take {longest.answer}, "
        f"which is more than the context lengths of {contexts} tokens."
    )
