"""What an embedding adds: only where it is better, beside a text that can still decide by itself."""

from dataclasses import replace

import numpy as np
import pytest

from serve_app.errors import CalibrationError
from serve_app.evaluate import corpus, fitting, fitting_embedded
from serve_app.evaluate import routing_metrics as metrics
from serve_app.routing import heads, neighbours
from serve_app.routing.heads import Heads
from tests.evaluate.made_up import embeddings, fitted, fitted_with_embeddings, riddles, traffic


def evidence(one: Heads) -> neighbours.Evidence:
    assert one.evidence is not None
    return one.evidence


def test_an_embedding_is_used_where_it_helps() -> None:
    one, (texts, outcomes), x = fitted_with_embeddings(), riddles(seed=5), embeddings(seed=5)
    whole = np.array([one.judge(text, vector).score for text, vector in zip(texts, x, strict=True)])
    alone = np.array([one.judge(text).score for text in texts])
    assert metrics.apgr(whole, outcomes) > metrics.apgr(alone, outcomes) + 0.05
    assert (one.dim, one.embedder, one.description["embedding_level"] > 0) == (6, "fake", True)
    assert one.description["apgr"] > one.description["apgr_text_alone"]


def test_an_embedding_that_says_nothing_is_left_out() -> None:
    texts, outcomes = traffic()
    noise = np.random.default_rng(0).normal(size=(len(texts), 6)).astype(np.float32)
    found = fitting.fit(texts, outcomes, embeddings=noise / np.linalg.norm(noise, axis=1, keepdims=True), embedder="fake")
    assert (found.evidence, found.embedder, found.dim) == (None, "", 0)
    assert found.judge(texts[0]) == fitted().judge(texts[0])


def test_the_probabilities_are_those_of_the_whole() -> None:
    one, (texts, outcomes), x = fitted_with_embeddings(), riddles(rows=400, seed=6), embeddings(rows=400, seed=6)
    weak = np.array([one.judge(text, vector).weak for text, vector in zip(texts, x, strict=True)])
    assert metrics.calibration_error(weak, outcomes.weak, bins=4) < 0.1


def test_all_predictions_at_once_equal_one_at_a_time() -> None:
    one, texts, x = fitted_with_embeddings(), riddles(rows=30, seed=7)[0], embeddings(rows=30, seed=7)
    found = corpus.predict(one, corpus.Corpus.of(texts, x))
    whole = [one.judge(text, vector) for text, vector in zip(texts, x, strict=True)]
    for name in ("score", "weak", "strong", "novelty"):
        assert getattr(found, name) == pytest.approx([getattr(each, name) for each in whole], abs=1e-4), name
    assert found.alone == pytest.approx([one.judge(text).score for text in texts], abs=1e-4)
    assert found.asked.tolist() == [float(not one.clear(score, 0.5)) for score in found.alone]


def test_a_margin_leaves_few_decisions_that_the_whole_would_change() -> None:
    random = np.random.default_rng(0)
    alone = random.random(1000)
    whole = np.clip(alone + random.normal(size=1000) * 0.1, 0, 1)
    margin = fitting_embedded.margin(alone, whole, 0.5)
    otherwise = ((alone >= 0.5) != (whole >= 0.5)) & (np.abs(alone - 0.5) > margin)
    assert otherwise.mean() == pytest.approx(fitting_embedded.DIFFERENT)
    assert 0.02 < margin < 0.2
    assert fitting_embedded.margin(alone, alone, 0.5) == 0.0


def test_a_clear_text_needs_no_embedding() -> None:
    one = replace(fitted_with_embeddings(), evidence=replace(evidence(fitted_with_embeddings()), margins=np.full(19, 0.1, np.float32)))
    assert [one.clear(score, 0.5) for score in (0.3, 0.45, 0.55, 0.7)] == [True, False, False, True]
    assert fitted().clear(0.5, 0.5)


def test_the_rows_are_bounded_and_the_same_bytes_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_ROWS", 100)
    texts, outcomes = riddles()
    first, second = (fitting.fit(texts, outcomes, embeddings=embeddings(), embedder="fake") for _ in range(2))
    assert evidence(first).rows.shape == (100, 6)
    assert heads.dump(first) == heads.dump(second)


def test_an_artefact_with_evidence_survives_its_file() -> None:
    one, texts, x = fitted_with_embeddings(), riddles(rows=10, seed=8)[0], embeddings(rows=10, seed=8)
    back = heads.load(heads.dump(one))
    assert [back.judge(text, vector) for text, vector in zip(texts, x, strict=True)] == [
        one.judge(text, vector) for text, vector in zip(texts, x, strict=True)
    ]


def test_an_embedding_of_another_size_is_refused() -> None:
    with pytest.raises(CalibrationError, match="needs an embedding of 6 numbers"):
        fitted_with_embeddings().judge("apples", np.ones(5, dtype=np.float32))


def test_near_rows_count_and_far_ones_do_not() -> None:
    above = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    found = neighbours.near(np.array([1.0, -1.0], dtype=np.float32), above)
    assert found[0] == pytest.approx(1 / (1 + neighbours.SHRINK), abs=1e-4)  # one row against ten of base rate
    assert found[1] < 1e-3


def test_both_ends_of_a_long_text_are_embedded() -> None:
    found = neighbours.excerpt("start" + "x" * 5000 + "end")
    assert (found[:5], found[-3:], len(found)) == ("start", "end", 401)
    assert neighbours.excerpt("short") == "short"


@pytest.mark.parametrize("change", [{"rows": np.zeros((3, 5), np.float32)}, {"margins": np.zeros(3, np.float32)}])
def test_broken_evidence_is_refused(change: dict[str, np.ndarray]) -> None:
    one = fitted_with_embeddings()
    with pytest.raises(CalibrationError, match="not a calibration artefact with heads"):
        heads.load(heads.dump(replace(one, evidence=replace(evidence(one), **change))))


def test_an_artefact_of_an_older_format_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "FORMAT", 1)
    old = heads.dump(fitted())
    monkeypatch.undo()
    with pytest.raises(CalibrationError, match=r"format 1, kind 'gain': calibrate again$"):
        heads.load(old)
