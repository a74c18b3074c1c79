"""Hand features and hashed n-grams: stable numbers from any text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.routing import lexical

QUESTION = "Which of the following is NOT prime?\nA. 2\nB. 3\nC. 15\nD. 7"


def feature(text: str, name: str) -> float:
    return float(lexical.hand(text)[lexical.HAND_NAMES.index(name)])


@given(st.text(max_size=300))
def test_any_text_gives_finite_numbers(text: str) -> None:
    assert np.isfinite(lexical.hand(text)).all()
    found = lexical.grams(text)
    assert np.isfinite(found.counts).all()
    assert (np.diff(found.buckets) > 0).all()
    assert not len(found.buckets) or (found.buckets[0] >= 0 and found.buckets[-1] < lexical.BUCKETS)


def test_every_feature_has_a_name_of_its_own() -> None:
    assert len(set(lexical.HAND_NAMES)) == len(lexical.HAND_NAMES) == len(lexical.hand(QUESTION))


def test_what_the_features_read() -> None:
    assert feature(QUESTION, "options") == 4
    assert feature(QUESTION, "option_numeric") == 1.0
    assert feature(QUESTION, "capital_not") == 1.0
    assert feature(QUESTION.lower(), "capital_not") == 0.0
    assert feature(QUESTION, "of_the_following") == pytest.approx(np.log1p(1))
    assert feature("He paid 3.50 and 1,200 dollars.", "largest_number") == pytest.approx(np.log1p(1200))
    assert feature("He paid 3.50 and 1,200 dollars.", "decimals") == pytest.approx(np.log1p(1))
    assert feature("ABc1 é", "upper") == pytest.approx(2 / 7)  # bytes


def test_the_hash_never_changes() -> None:
    """An artefact fitted yesterday on another machine must mean the same here."""
    found = lexical.grams("What is 12 + 30?")
    assert found.buckets[:4].tolist() == [6243, 11358, 13741, 20638]
    assert int(found.buckets.sum()) == 2013359


def test_numbers_are_hashed_by_their_length() -> None:
    same = lexical.grams("In 1987 he had 31 sheep"), lexical.grams("In 2044 he had 96 sheep")
    assert same[0].buckets.tolist() == same[1].buckets.tolist()
    assert lexical.grams("In 5 he had 96 sheep").buckets.tolist() != same[0].buckets.tolist()


def test_long_text_is_read_at_both_ends() -> None:
    pasted = "filler " * 5000
    assert len(lexical.scanned(pasted)) <= lexical.SCAN_CHARS + 1
    assert feature(pasted + "Calculate the ratio.", "calculate") > 0
    assert feature("Calculate the ratio. " + pasted, "calculate") > 0


def test_words_and_runs_have_length_one_each() -> None:
    documents = [lexical.grams(text) for text in (QUESTION, QUESTION, "Who wrote Hamlet?")]
    found = lexical.weighted(documents[0], lexical.idf_of(documents))
    words = found.buckets < 1 << lexical.WORD_BITS
    assert np.linalg.norm(found.counts[words]) == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(found.counts[~words]) == pytest.approx(1.0, abs=1e-5)


def test_what_one_document_alone_holds_counts_nothing() -> None:
    idf = lexical.idf_of([lexical.grams("alpha beta"), lexical.grams("alpha gamma")])
    assert (idf[lexical.grams("alpha").buckets] > 0).all()
    assert np.linalg.norm(lexical.weighted(lexical.grams("delta"), idf).counts) == 0.0


def test_a_long_text_is_counted_as_a_short_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above `MANY` n-grams another way of counting takes over, with the same result."""
    text = " ".join(f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}q" for i in range(1500))
    quick = lexical.grams(text)
    monkeypatch.setattr(lexical, "MANY", 10**9)
    slow = lexical.grams(text)
    assert len(slow.buckets) > 1000
    assert (quick.buckets.tolist(), quick.counts.tolist()) == (slow.buckets.tolist(), slow.counts.tolist())
