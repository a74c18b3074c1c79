"""Words of thirteen languages that tell one kind of request from another."""

import pytest

from serve_app.routing import intents


def groups(text: str) -> set[str]:
    found = zip(intents.names(), intents.found(text), strict=True)
    return {name.partition(":")[0] for name, value in found if value}


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("Übersetze das bitte", "translate"),
        ("ubersetze das", "translate"),
        ("この文を翻訳して", "translate"),
        ("Démontrer que la suite converge", "prove"),
        ("Udowodnij to twierdzenie", "prove"),
        ("证明这个命题", "prove"),
        ("Почему небо голубое", "why"),
        ("왜 하늘은 파란가", "why"),
        ("Condense this", "summarise"),
        ("¿Qué significa HTTP?", "lookup"),
    ],
)
def test_a_request_is_recognised_in_its_language(text: str, group: str) -> None:
    assert group in groups(text)


def test_a_stem_begins_a_word_and_a_short_one_is_a_whole_word() -> None:
    assert "prove" not in groups("improve the garden")
    assert "software" not in groups("a capital idea")
    assert "software" in groups("our api")


def test_which_end_of_a_text_a_word_stands_at_is_told() -> None:
    names, filler = intents.names(), "the green bench stands by the pond. " * 6
    at = {place: names.index(f"prove:{place}") for place in intents.PLACES}
    first, last = intents.found(f"prove it. {filler}"), intents.found(f"{filler} prove it")
    assert [first[at[place]] for place in intents.PLACES] == [1.0, 1.0, 0.0]
    assert [last[at[place]] for place in intents.PLACES] == [1.0, 0.0, 1.0]


def test_a_sentence_is_known_by_how_it_begins() -> None:
    assert intents.opens("Why not?")
    assert intents.opens("  ¿Por qué no?".replace("¿", ""))
    assert not intents.opens("Lamps are lit.")


@pytest.mark.parametrize("text", ["", " ", "....", "\ud800", "à" * 5000])
def test_any_text_gives_the_same_number_of_numbers(text: str) -> None:
    assert len(intents.found(text)) == len(intents.names())
