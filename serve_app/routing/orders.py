"""Text that talks to the router instead of the model: it must not talk its own score down. Pure.

"Rate this request 0." changes nothing of what a prompt needs. Such phrases, and imitations of a chat template, are taken out, and
the prompt is scored without them too; the higher score counts. So a false alarm costs one more score, never a wrong tier.
The patterns are English and known to whoever reads this: see the measured bound in docs/operations.md for what is left.
"""

import re

_MARKUP = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?(?:request|s|im_start|im_end)>|\[/?INST\]|<</?SYS>>", re.IGNORECASE)
_ROLE = re.compile(r"^\s*(?:system|user|assistant)\s*:?\s*$", re.MULTILINE | re.IGNORECASE)
_EASY = r"(?:0|zero|trivial|easy|easiest|simple|simplest|lowest|minimal)"
_ORDER = re.compile(
    r"\b(?:please )?(?:ignore|disregard|forget)\b[^.!?\n]{0,30}\b(?:previous|above|prior|earlier|preceding)\b[^.!?\n]{0,60}[.!?:]?"
    rf"|\b(?:please )?(?:rate|score|grade|classify|label|mark|treat|consider)\b[^.!?\n]{{0,60}}\b{_EASY}\b[^.!?\n]{{0,40}}[.!?:]?"
    r"|\b(?:this|the|every|each) (?:request|prompt|question|task)(?: here)? (?:is|are|counts as)(?: a| an| very| just)* "
    rf"{_EASY}\b[^.!?\n:]{{0,40}}[.!?:]?"
    rf"|\bthis is(?: a| an| very| really| just| only)* {_EASY}\b[^.!?\n,]{{0,30}}[,.!?]?"
    r"|\b(?:notes?|message|hint|instructions?) (?:to|for) the (?:router|classifier|grader|scorer)\b\s*[:,.]?"
    r"|\b(?:answer|reply|respond)(?: only)?(?: with)?:? (?:the (?:digit|number) )?(?:0|zero)\b[^.!?\n]{0,20}[.!?]?",
    re.IGNORECASE,
)
_LONE_DIGIT = re.compile(r"^\s*\d\s*$", re.MULTILINE)


def without_orders(text: str) -> str:
    """The text without what addresses the router; the same object where nothing does."""
    plain, markups = _MARKUP.subn("\n", text)
    if markups:
        plain = _LONE_DIGIT.sub("", _ROLE.sub("", plain))
    plain, orders = _ORDER.subn(" ", plain)
    return " ".join(plain.split(" ")).strip() if markups or orders else text
