"""Cheap facts from the text: no model, no I/O, microseconds. Patterns are linear in the text's length.

The maths/code rule is the article's: INT4 weights lose most on arithmetic and code (its pitfall 4), so that such prompts
go to the large tier whatever they score. It looks for code and notation themselves, and for requests to produce them;
a mere mention ("What does SQL stand for?") is not enough.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from serve_app.domain import Features
from serve_app.routing.instruction import unquoted

DEFINITION = 120  # characters; a longer question wants more than a definition
SCAN_CHARS = 16_384  # more text than any instruction; bounds the time spent on a pasted book

# A line that ends as statements do; a semicolon alone also ends the lines of a contract.
_STATEMENT = r"(?:[{}];?|\);|= ?[\w.\"']{1,40};|\breturn\b[^;\n]{0,60};)[ \t]*"
_CODE = re.compile(
    "|".join(
        (
            # A fence that names a language. One around plain text is no code; what is inside is looked at by the other patterns.
            r"^[ \t]*(?:```|~~~)[ \t]*(?!(?:text|txt|plain|plaintext|markdown|md|quote)\b)[a-zA-Z][\w+#-]*[ \t]*$",
            r"^[ \t]*(?:(?:def|fn|func) \w+\(|class \w+[(:{]|import [\w.]+$|from [\w.]+ import |#include[ \t]*<|public (?:static|class) )",
            r"^[ \t]*SELECT\s[^;]{1,200}?\sFROM\s|^[ \t]*select (?:\*|\w[\w.]*(?:, ?[\w.]+)+|count\([\w*]*\)) from ",
            r"^(?:Traceback \(most recent call last\)|[ \t]+at [\w.$]+\([\w.]+:\d+\)|[ \t]*File \".+\", line \d+)",
            _STATEMENT + r"\n(?:.*\n)?.*" + _STATEMENT + "$",
            r"\b\w+\(\w*\)[ \t]*(?:=>|\{)|=>[ \t]*\{|\bstd::|\b\w+\.\w+\([^)\n]{0,80}\);",
        )
    ),
    re.MULTILINE,
)
# `$...$` by Pandoc's rule (no space inside the dollars, no digit behind), so that two prices are no formula. `m²` is an area.
_MATH = re.compile(
    r"\$(?=[^$\n]{1,200}[\\^_=+])[^$\s][^$\n]{0,400}(?<=\S)\$(?!\d)"
    r"|\\(?:frac|sum|int|sqrt|begin|lim|mathbb|infty|cdot|alpha|theta|lambda|sigma)(?![A-Za-z])"
    r"|[∑∫√∂∇∞≤≥≠≈∈∀∃⊂∪∩⇒ℝℤℕℚ]|\b[a-ln-z]\s?\^\s?[\dn{(]|\b[a-ln-z]²|\)²|\b[xyn]³"
    r"|\b\d*[a-z]\s*[+\-*/]\s*\d+[a-z]?\s*=\s*-?\d+|\b[a-z]\([a-z]\)\s*=\s*\S"
)
_LANGUAGES = (
    r"(?:python|rust|java|javascript|typescript|c\+\+|c#|golang|go|kotlin|swift|ruby|php|scala|haskell|sql|bash|shell"
    r"|powershell|perl|r|matlab)"
)
_ASKS_CODE = re.compile(
    r"\b(?:refactor|debug|reimplement|deobfuscate|vectori[sz]e|parallelis?ze)\b"
    r"|\b(?:write|implement|code|create|build|design|fix|optimi[sz]e|port|rewrite|translate|convert)\b[^.?!\n]{0,60}"
    r"\b(?:function|algorithm|regex|regular expression|sql query|query in sql|unit tests?|class hierarchy|parser|compiler"
    rf"|in {_LANGUAGES}|{_LANGUAGES} (?:function|script|program|code|class|module))(?![\w+#])"
    rf"|\b(?:port|rewrite|translate|convert)\b[^.?!:\n\"']{{0,60}}\bto {_LANGUAGES}(?![\w+#])"
    r"|\b(?:race condition|deadlock|memory leak|segfault|segmentation fault|stack overflow error|null pointer|stack trace)\b"
    r"|\btime complexity\b",
    re.IGNORECASE,
)
# A person after the verb asks for evidence or for a choice, not for mathematics: "prove that I live here", "how many ways can I pay".
_NO_PERSON = r"(?! (?:i|my|we|our|you|your|he|she|they|their)\b)"
_ASKS_MATH = re.compile(
    rf"\b(?:prove|disprove) (?:that|the|whether|this|there|if|formally|rigorously|or disprove)\b{_NO_PERSON}|\bshow that\b{_NO_PERSON}"
    r"|\bprove it (?:properly|formally|rigorously|by)\b|\bderive (?:that|the|this|it)\b|\bproof (?:that|of|by)\b(?! (?:purchase|address))"
    r"|\b(?:integrate|differentiate) (?:by parts|implicitly|with respect|the (?:function|expression)|(?:sin|cos|tan|ln|log|[xyzt])\b)"
    r"|\bfactori[sz]e\b|\b(?:integral|derivative|determinant|eigenvalues?) of (?:the )?\w"
    r"|\b(?:solve|evaluate|compute) (?:for [a-z]\b|the (?:equation|integral|system|recurrence|limit|sum|inequality))"
    r"|\b(?:solve|evaluate|compute) this (?:equation|integral|recurrence|puzzle)"
    rf"|\bhow many (?:different |distinct )?ways (?:can|could|are there|to)\b{_NO_PERSON}|\bhow many distinct\b"
    r"|\bexpected (?:value|number) of\b|\bwhat is the probability\b|\bclosed form\b",
    re.IGNORECASE,
)


# "Define deadlock" asks what a word means, and no code.
_DEFINES = re.compile(
    r"\s*(?:please )?(?:define\b|what(?:'s| is) an? |what does .{1,60} (?:mean|stand for)\b|what do you call )", re.IGNORECASE
)


def from_text(text: str, turns: int = 1) -> Features:
    scanned = text if len(text) <= SCAN_CHARS else text[: SCAN_CHARS // 2] + "\n" + text[-SCAN_CHARS // 2 :]
    own = unquoted(scanned)  # what a quotation asks for, nobody asks here
    return Features(
        chars=len(text),
        turns=turns,
        code=_CODE.search(scanned) is not None,
        math=_MATH.search(scanned) is not None,
        asks_code=_ASKS_CODE.search(own) is not None and not _defines(own),
        asks_math=_ASKS_MATH.search(own) is not None,
    )


def _defines(text: str) -> bool:
    return len(text) < DEFINITION and _DEFINES.match(text) is not None


def from_body(text: str, body: Mapping[str, Any]) -> Features:
    """Features of a chat or completion request; `text` is what will be scored."""
    messages = body.get("messages")
    turns = sum(1 for message in messages if message.get("role") == "user") if isinstance(messages, list) else 1
    response_format = body.get("response_format") or {}
    return replace(
        from_text(text, turns),
        tools=bool(body.get("tools")),
        json_schema=response_format.get("type") in ("json_schema", "json_object"),
        images=any(part.get("type") == "image_url" for part in _parts(messages or ())),
    )


def scored_text(body: Mapping[str, Any]) -> str:
    """The text that stands for the request: the last user message, or the prompt of a completion."""
    if isinstance(body.get("messages"), list):
        for message in reversed(body["messages"]):
            if message.get("role") == "user":
                return content_text(message.get("content"))
        return ""
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else "\n".join(part for part in prompt if isinstance(part, str))


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or () if part.get("type") == "text")


def cut(text: str, chars: int) -> str:
    """The first `chars` characters, never inside one: a combining mark or half an emoji sequence is not left behind.

    Python slices at code points, so that no character of UTF-8 is split; what can be split is a grapheme cluster.
    """
    if len(text) <= chars:
        return text
    end = chars
    while end > 0 and _continues(text[end - 1], text[end]):
        end -= 1
    return text[: end or chars]


_JOINER = "\u200d"


def _continues(before: str, after: str) -> bool:
    joined = _JOINER in (before, after)
    return joined or after in "\ufe0e\ufe0f" or "\u0300" <= after <= "\u036f" or "\U0001f3fb" <= after <= "\U0001f3ff"


def _parts(messages: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from (part for part in content if isinstance(part, Mapping))
