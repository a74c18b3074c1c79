"""What of a prompt is read for its difficulty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.routing.instruction import LONGEST, PASTED, alternatives, instruction

QUESTION = "Why is the night sky dark?"
LETTER = "The benches by the pond have been painted green again. " * 6
PAGES = f"{LETTER}\n\n{LETTER}\n\n{LETTER}"


@pytest.mark.parametrize(
    "wrapped",
    [
        f"Hi there, {QUESTION}",
        f"Could you please tell me: {QUESTION}",
        f"{QUESTION} Thanks in advance!",
        f"Bitte beantworte: {QUESTION}",
        f"Beantworte bitte die folgende Frage: {QUESTION}",
        f"As discussed above: {QUESTION}",
        f"次の質問に答えてください：{QUESTION}",
        f"Hello! Please answer the following: {QUESTION} Kind regards",
        f"```\n{QUESTION}\n```",
        f"{PAGES}\n\n{QUESTION}",
        f"{QUESTION}\n\n{PAGES}",
    ],
)
def test_what_a_question_is_wrapped_in_goes(wrapped: str) -> None:
    assert instruction(wrapped) == QUESTION


@pytest.mark.parametrize("text", ["hello", "Thank you so much!", "Merci beaucoup", "So, what now?", "If a bat sleeps, does it dream?"])
def test_a_courtesy_alone_and_a_plain_question_stay(text: str) -> None:
    assert instruction(text) in {text, text.removeprefix("So, ")}


def test_a_long_quotation_is_blanked_and_what_is_asked_of_it_stays() -> None:
    assert instruction(f'Translate into French: "{LETTER}" Keep it short.') == f'Translate into French: "{PASTED}" Keep it short.'


def test_the_instruction_is_found_behind_more_text_than_is_embedded() -> None:
    assert instruction(f"{PAGES * 20}\n\n{QUESTION}") == QUESTION


def test_where_neither_end_asks_both_are_read_by_themselves_too() -> None:
    text = f"{LETTER}\n\n{LETTER}\n\nReverse proxy secrets rotation every hour"
    assert alternatives(text) == [LETTER.strip(), "Reverse proxy secrets rotation every hour"]
    assert alternatives(f"{PAGES}\n\n{QUESTION}") == []
    assert alternatives(QUESTION) == []


@given(st.text(max_size=3000))
def test_any_text_has_a_view_that_is_short(text: str) -> None:
    assert len(instruction(text)) <= LONGEST + len(PASTED) + 2
    assert instruction(text) or not text.strip()
