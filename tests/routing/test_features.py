"""The cheap facts: code and mathematics in the text and requests for them, and where a text is cut."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.routing import features

HEURISTIC = [
    "```python\nprint(1)\n```",
    "What is wrong here?\ndef add(a, b):\n    return a - b",
    "import numpy\nx = 1",
    "SELECT name FROM users WHERE age > 3",
    "select * from orders",
    'Traceback (most recent call last):\n  File "a.py", line 3, in <module>',
    "Exception\n\tat com.acme.Main.run(Main.java:14)",
    "for (int i = 0; i < n; i++) {\n  total += i;\n}",
    "const f = (x) => { return x }",
    "std::vector<int> v",
    "Write a Python function that merges two sorted lists",
    "Implement a ring buffer in Go",
    "Port this to Rust, please",
    "Create a regex for dates",
    "Why is there a race condition between these two threads?",
    "refactor the billing module",
    "Let $f(x) = x^2$ be given",
    r"Evaluate \int_0^1 x dx",
    "Is ∑ 1/n finite?",
    "Solve 3x + 2 = 11",
    "f(x) = 3, what is f(2)?",
    "Prove that there are infinitely many primes",
    "Show that the sequence converges",
    "What is the derivative of sin x?",
    "Integrate by parts",
    "In how many ways can 8 people sit at a table? How many distinct tables are there?",
    "how many ways can 8 couples sit round a table",
    "What is the expected number of throws?",
    "Factorise 12 + 8a",
]
PLAIN = [
    "What does SQL stand for?",
    "Who invented Python?",
    "Write a wedding speech for my brother",
    "Write a phone script that apologises for the delay",
    "Translate 'I want to go home' into French",
    "Translate to German: my old bicycle began to rust",
    "How do I differentiate a crocodile from an alligator?",
    "Does your product integrate with Slack?",
    "How do I prove that I live at this address?",
    "Can I send proof of purchase by mail?",
    "Show the opening hours for Sunday",
    "How many ways can I pay for my order?",
    "Is $20 + $5 too much for a haircut?",
    "It costs $5, or $9 with delivery = cheap",
    "How many square feet are 20 m²?",
    "Go to Home → Settings → Privacy",
    "select a gift from the catalogue",
    "The parties agree to pay;\nthe parties agree to deliver;\nthe parties agree to meet;",
    "My e-mail is a.b@example.com (work), call me at 5.",
    "class of 1999 reunion, import duties and public holidays",
    "Rate my essay: it is (somewhat) short.",
]


@pytest.mark.parametrize("text", HEURISTIC)
def test_code_and_mathematics_are_found(text: str) -> None:
    assert features.from_text(text).math_or_code


@pytest.mark.parametrize("text", PLAIN)
def test_a_mere_mention_is_not_enough(text: str) -> None:
    facts = features.from_text(text)
    assert not facts.math_or_code, facts


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("```python\nx\n```", "code"),
        ("Is ∑ 1/n finite?", "math"),
        ("Write a parser", "asks_code"),
        ("Prove that there is no largest prime", "asks_math"),
    ],
)
def test_each_fact_is_told_apart(text: str, fact: str) -> None:
    facts = features.from_text(text)
    assert [name for name in ("code", "math", "asks_code", "asks_math") if getattr(facts, name)] == [fact]


SIZE = 200_000
ADVERSARIAL = {
    "newlines": "\n",
    "spaces": " ",
    "tabs": "\t",
    "one word": "a",
    "digits": "1",
    "backslashes": "\\",
    "semicolons and blank lines": ";" + "\n" * 50,
    "opening braces": "{ ",
    "parentheses": "(",
    "calls that never close": "a(",
    "methods that never close": "a.b(",
    "dots": "a.",
    "dollars": "$" + "=" * 399 + "\n",
    "dollar pairs": "$=",
    "verbs": "write ",
    "verbs and half a request": "write a in ",
    "converting": "convert ",
    "assignments": "=a;",
    "equals signs": "=",
    "SELECT without FROM": "SELECT\n",
    "columns": ", a",
    "files": 'File "a", ',
    "stack frames": " at a",
    "open statements": "{\n" + "x" * 1000 + "\n",
    "half equations": "x + 1",
    "gaps": "x     ",
    "proofs": "prove that i ",
}


@pytest.mark.parametrize("pattern", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_no_text_makes_a_pattern_slow(pattern: str) -> None:
    text = (pattern * (SIZE // len(pattern) + 1))[:SIZE]
    assert min(cpu_seconds(text) for _ in range(3)) < 0.1


def cpu_seconds(text: str) -> float:
    started = time.process_time()
    features.from_text(text)
    return time.process_time() - started


def test_a_request_at_the_end_of_a_long_text_is_seen() -> None:
    assert features.from_text("word " * 100_000 + "\nProve that there is no largest prime.").asks_math


def test_chars_count_the_whole_text_not_the_scanned_part() -> None:
    assert features.from_text("a" * SIZE).chars == SIZE


# Bodies


def test_body_facts_are_read_from_the_request() -> None:
    body = {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]},
        ],
        "tools": [{"type": "function"}],
        "response_format": {"type": "json_schema"},
    }
    facts = features.from_body("hi", body)
    assert (facts.turns, facts.tools, facts.json_schema, facts.images) == (2, True, True, True)


def test_a_bare_body_has_no_extras() -> None:
    facts = features.from_body("hi", {"prompt": "hi", "response_format": {"type": "text"}, "tools": []})
    assert (facts.turns, facts.tools, facts.json_schema, facts.images) == (1, False, False, False)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [{"role": "user", "content": "first"}, {"role": "user", "content": "last"}]}, "last"),
        ({"messages": [{"role": "user", "content": "asked"}, {"role": "assistant", "content": "told"}]}, "asked"),
        ({"messages": [{"role": "system", "content": "rules"}]}, ""),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]}
                ]
            },
            "a\nb",
        ),
        ({"messages": [{"role": "user", "content": None}]}, ""),
        ({"prompt": "once"}, "once"),
        ({"prompt": ["one", "two"]}, "one\ntwo"),
    ],
)
def test_the_last_user_message_or_the_prompt_is_scored(body: dict[str, object], text: str) -> None:
    assert features.scored_text(body) == text


# Cutting

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("text", "chars", "kept"),
    [
        ("hello", 5, "hello"),
        ("hello", 3, "hel"),
        ("ae\u0301b", 2, "a"),
        ("ae\u0301b", 3, "ae\u0301"),
        (f"a{FAMILY}b", 2, "a"),
        (f"a{FAMILY}b", 4, "a"),
        (f"a{FAMILY}b", 6, f"a{FAMILY}"),
        ("a\U0001f44d\U0001f3fdb", 2, "a"),
        ("日本語", 2, "日本"),
        ("", 3, ""),
    ],
)
def test_cut_never_ends_inside_a_character(text: str, chars: int, kept: str) -> None:
    assert features.cut(text, chars) == kept


def test_cut_of_one_endless_character_keeps_something() -> None:
    assert features.cut("e" + "\u0301" * 50, 10) == "e" + "\u0301" * 9


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_cut_gives_a_bounded_prefix(text: str, chars: int) -> None:
    kept = features.cut(text, chars)
    assert text.startswith(kept)
    assert len(kept) <= chars
    assert bool(kept) == bool(text)
