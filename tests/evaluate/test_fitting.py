"""Fitting the two heads, and what the fitted artefact does: on made-up traffic whose truth is known."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from serve_app.errors import CalibrationError
from serve_app.evaluate import corpus, fitting
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.routing_metrics import Outcomes
from serve_app.routing import heads
from tests.evaluate.made_up import fitted, traffic


def judged(texts: list[str]) -> npt.NDArray[np.float64]:
    return np.array([fitted().judge(text).score for text in texts])


def test_new_traffic_is_ranked_by_its_gain() -> None:
    texts, outcomes = traffic(seed=2)
    assert metrics.apgr(judged(texts), outcomes) > 0.6


def test_the_probabilities_are_calibrated_on_new_traffic() -> None:
    texts, outcomes = traffic(rows=600, seed=3)
    both = [fitted().judge(text) for text in texts]
    assert metrics.calibration_error(np.array([one.weak for one in both]), outcomes.weak, bins=4) < 0.1
    assert metrics.calibration_error(np.array([one.strong for one in both]), outcomes.strong, bins=4) < 0.1
    assert both[0].gain == both[0].strong - both[0].weak


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_share_that_is_asked_for_is_realised(share: float) -> None:
    """Of 240 fitted rows; all easy ones score nearly the same, so that a share between the two heaps is loose."""
    texts, _ = traffic(rows=400, seed=4)
    assert np.mean(judged(texts) >= 1 - share) == pytest.approx(share, abs=0.12)


def test_serving_computes_what_fitting_did() -> None:
    """One text at a time, from the text, equals the matrix that was fitted on."""
    texts, _ = traffic(rows=20, seed=5)
    one = fitted()
    whole = corpus.features_of(corpus.Corpus.of(texts), one.view) @ np.vstack([one.dense, one.sparse]) + one.intercept
    alone = [one.raw(one.view.dense(fitting.lexical.hand(text)), one.view.sparse(fitting.lexical.grams(text))) for text in texts]
    assert np.stack(alone) == pytest.approx(np.asarray(whole), abs=1e-5)


def test_a_text_of_unknown_words_gets_exactly_the_base_rate() -> None:
    one, alien = fitted(), "zxqvy wkjhg ßßß 漢字 qqqrr"
    found, grams, dense = one.judge(alien), fitting.lexical.grams(alien), one.view.dense(fitting.lexical.hand(alien))
    assert one.raw(dense, one.view.sparse(grams)) != pytest.approx(one.intercept, abs=1e-4)  # its form alone would say something
    assert found.novelty == 1.0
    assert found.weak == pytest.approx(float(np.interp(one.intercept[0], *one.weak_curve)), abs=1e-6)
    assert found.score == pytest.approx(heads.rank(float(heads.routed(one.intercept, one.mix)), one.knots), abs=1e-6)


def test_known_traffic_is_no_news() -> None:
    texts, _ = traffic()
    assert np.mean([fitted().judge(text).novelty < 0.5 for text in texts]) > 0.9


def test_the_report_says_what_to_expect() -> None:
    report = fitted().description
    assert (report["rows"], report["seed"], report["source"]) == (240, 0, "made up")
    assert 0.5 < report["apgr_low"] < report["apgr"] < report["apgr_high"]
    assert 0.0 < report["cpt_50"] < report["cpt_80"] < 0.8


def test_the_same_rows_and_seed_give_the_same_bytes() -> None:
    assert heads.dump(fitting.fit(*traffic(), source="made up")) == heads.dump(fitted())


def test_an_artefact_survives_its_file() -> None:
    back = heads.load(heads.dump(fitted()))
    texts, _ = traffic(rows=10, seed=6)
    assert [back.judge(text) for text in texts] == [fitted().judge(text) for text in texts]
    assert (back.description, back.mix, back.threshold) == (fitted().description, fitted().mix, 0.5)


def test_rows_of_one_question_stay_together() -> None:
    names = [str(i // 3) for i in range(60)]
    for train, test in fitting.folds_of(names, seed=0):
        assert not {names[i] for i in train} & {names[i] for i in test}
        assert len(train) + len(test) == 60


# What is refused


def test_too_few_rows_are_refused() -> None:
    texts, outcomes = traffic(rows=fitting.MIN_ROWS - 2)
    with pytest.raises(CalibrationError, match=f"too few rows: {fitting.MIN_ROWS - 2}"):
        fitting.fit(texts, outcomes)


def test_models_without_a_gap_are_refused() -> None:
    texts, outcomes = traffic()
    with pytest.raises(CalibrationError, match="nothing to gain"):
        fitting.fit(texts, Outcomes(outcomes.strong, outcomes.weak))


def test_rows_without_signal_are_refused() -> None:
    texts, outcomes = traffic()
    shuffled = outcomes.take(np.random.default_rng(3).permutation(len(texts)))
    with pytest.raises(CalibrationError, match="no signal"):
        fitting.fit(texts, shuffled)


def test_a_score_too_few_is_refused() -> None:
    texts, outcomes = traffic()
    with pytest.raises(CalibrationError, match="239 prompts, 240 and 240 scores"):
        fitting.fit(texts[1:], outcomes)


# Artefacts that are none


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no zip"])
def test_bytes_that_are_no_artefact_are_refused(data: bytes) -> None:
    with pytest.raises(CalibrationError, match="not a calibration artefact with heads"):
        heads.load(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intercept": np.zeros(3, dtype=np.float32)}, "intercepts of shape"),
        ({"dense": np.zeros((2, 2), dtype=np.float32)}, "dense weights of shape"),
        ({"threshold": 1.5}, "out of range"),
        ({"knots": np.array([1.0, 0.0], dtype=np.float32)}, "out of range"),
        ({"intercept": np.array([np.nan, 0.0], dtype=np.float32)}, "out of range"),
    ],
)
def test_a_broken_artefact_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        heads.load(heads.dump(replace(fitted(), **change)))
