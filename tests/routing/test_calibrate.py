"""Fitting the centroids: a logistic regression in the article's form."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from serve_app.domain import Tier
from serve_app.errors import CalibrationError
from serve_app.routing.calibrate import MIN_ROWS_PER_LABEL, STRENGTHS, Ratings, fit
from serve_app.routing.score import Calibration, dump

DIM = 8


def data(rows: int = 120, signal: float = 2.0, seed: int = 1) -> tuple[npt.NDArray[np.float32], list[Tier]]:
    """Unit vectors whose first coordinate tells the label, as clearly as `signal`."""
    random = np.random.default_rng(seed)
    large = np.arange(rows) % 2 == 0
    x = random.normal(size=(rows, DIM))
    x[:, 0] += np.where(large, signal, -signal)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), [Tier.LARGE if one else Tier.SMALL for one in large]


@cache
def fitted() -> Calibration:
    return fit(*data(), embedder="fake")


def test_the_fit_equals_a_logistic_regression() -> None:
    """The same probabilities, shifted by the logit of the threshold: even odds score exactly the threshold."""
    x, labels = data()
    y = [label is Tier.LARGE for label in labels]
    model = LogisticRegression(C=fitted().description["regularisation_c"], max_iter=2000).fit(x.astype(np.float64), y)
    logits = model.decision_function(x.astype(np.float64)) + np.log(0.65 / 0.35)
    scores = [fitted().embedding_score(row) for row in x]
    assert scores == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-4)


def test_even_odds_score_the_threshold() -> None:
    x, labels = data()
    half = fit(x, labels, embedder="fake", threshold=0.5)
    fitted_large = [fitted().embedding_score(row) >= 0.65 for row in x]
    assert fitted_large == [half.embedding_score(row) >= 0.5 for row in x]


def test_the_scores_tell_the_labels_apart() -> None:
    x, labels = data(seed=2)
    right = [(fitted().embedding_score(row) >= 0.65) == (label is Tier.LARGE) for row, label in zip(x, labels, strict=True)]
    assert np.mean(right) > 0.8


def test_the_description_says_what_was_done() -> None:
    description = fitted().description
    assert (description["rows"], description["rows_large"], description["seed"]) == (120, 60, 0)
    assert description["regularisation_c"] in STRENGTHS
    assert 0.8 < description["cross_validated_accuracy"] <= 1.0
    assert 0.3 < fitted().large_share < 0.7


def test_the_same_rows_and_seed_give_the_same_bytes() -> None:
    again = fit(*data(), embedder="fake")
    assert dump(again) == dump(fitted())


# The router model's own middle


def rated(rise: float) -> Ratings:
    """Ratings around 0.3 that rise with the label by `rise`."""
    _, labels = data()
    noise = np.random.default_rng(4).normal(scale=0.02, size=len(labels))
    return Ratings("router", [0.3 + n + (rise if label is Tier.LARGE else -rise) for n, label in zip(noise, labels, strict=True)])


def test_the_routers_even_odds_score_the_threshold() -> None:
    head = fit(*data(), embedder="fake", ratings=rated(0.02)).assessment
    assert head is not None
    assert head.model == "router"
    assert head(0.3) == pytest.approx(0.65, abs=0.02)
    assert head(0.2) < 0.65 < head(0.4)


def test_ratings_that_fall_with_difficulty_are_not_used() -> None:
    fitted = fit(*data(), embedder="fake", ratings=rated(-0.02))
    assert fitted.assessment is None
    assert fitted.description["assessment"] == "not fitted"


def test_ratings_do_not_change_the_embedding_score() -> None:
    with_ratings = fit(*data(), embedder="fake", ratings=rated(0.02))
    assert (with_ratings.logistic, with_ratings.large_share) == (fitted().logistic, fitted().large_share)


# What is refused


def test_rows_without_signal_are_refused() -> None:
    x, labels = data(signal=0.0)
    shuffled = [labels[i] for i in np.random.default_rng(3).permutation(len(labels))]
    with pytest.raises(CalibrationError, match="no signal"):
        fit(x, shuffled, embedder="fake")


def test_identical_rows_are_refused() -> None:
    _, labels = data()
    with pytest.raises(CalibrationError, match="no signal"):
        fit(np.ones((len(labels), DIM), dtype=np.float32), labels, embedder="fake")


@pytest.mark.parametrize("large", [0, MIN_ROWS_PER_LABEL - 1])
def test_too_few_rows_of_a_label_are_refused(large: int) -> None:
    x, _ = data()
    labels = [Tier.LARGE] * large + [Tier.SMALL] * (len(x) - large)
    with pytest.raises(CalibrationError, match=f"too few rows: {len(x) - large} small and {large} large"):
        fit(x, labels, embedder="fake")


def test_a_label_too_many_is_refused() -> None:
    x, labels = data()
    with pytest.raises(CalibrationError, match="labels for embeddings of shape"):
        fit(x, [*labels, Tier.LARGE], embedder="fake")
