"""A conversation does not drop to the small tier in the middle of hard work. Pure, and stateless: everything is read from the messages.

"Commit it" after a refactoring is easy only by itself. So the turns before count too: a conversation is as hard as the
hardest of its last few user turns, and may drop only after that many easy ones in a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.routing.features import content_text, from_text

HARDEST = 1.0


def earlier_turns(body: Mapping[str, Any], most: int) -> tuple[str, ...]:
    """Texts of up to `most` user turns before the last one, oldest first; empty ones are left out."""
    messages = body.get("messages")
    if not isinstance(messages, list) or most <= 0:
        return ()
    texts = [content_text(message.get("content")) for message in messages if message.get("role") == "user"]
    return tuple(text for text in texts[:-1] if text.strip())[-most:]


def is_tool_loop(body: Mapping[str, Any]) -> bool:
    """Whether the model is being told what a tool gave: the turn is not over, whoever asked for the tool must read it."""
    messages = body.get("messages")
    return isinstance(messages, list) and bool(messages) and messages[-1].get("role") in ("tool", "function")


def needs_no_score(text: str, *, math_code_heuristic: bool) -> bool:
    """A turn with code or mathematics counts as hard without a model."""
    return math_code_heuristic and from_text(text).math_or_code


def hardest(scores: Sequence[float | None]) -> float | None:
    """The highest known score; None when none is known. A turn that could not be scored says nothing."""
    known = [score for score in scores if score is not None]
    return max(known) if known else None
