"""Fit the centroid score on labelled embeddings. Pure: arrays in, a `Calibration` out; seeded, the same bytes every time.

With squared distances, |e-s|^2 - |e-c|^2 = 2 e.(c-s) + |s|^2 - |c|^2 is linear in the embedding e. Placing the centroids
`s` and `c` so that the logistic of that difference explains the labels is therefore a logistic regression, which is convex:
the centroids start from the mean of all embeddings and lie along the fitted direction, as far apart as the class means are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from serve_app.domain import Tier
from serve_app.errors import CalibrationError
from serve_app.routing import drift, fit_label, novelty
from serve_app.routing.score import KIND_LABEL, RATING_EDGE, AssessmentHead, Calibration, Logistic

ARTICLE_THRESHOLD = 0.65
MIN_ROWS_PER_LABEL = 20
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratings:
    """What the router model `model` (its id in the settings) said of each row, in [0, 1]."""

    model: str
    values: Sequence[float]


def fit(
    embeddings: npt.NDArray[np.float32],
    labels: Sequence[Tier],
    *,
    embedder: str,
    threshold: float = ARTICLE_THRESHOLD,
    seed: int = 0,
    source: str = "",
    ratings: Ratings | None = None,
    texts: Sequence[str] | None = None,
) -> Calibration:
    """Fit on L2-normalised `embeddings`, shape (rows, dim), and one label per row.

    `texts`, where given, tell the artefact what is familiar, and how its held-out rows score. The offset is fitted so that the
    point where both labels are equally likely scores exactly `threshold`. Raises `CalibrationError` when there are too few rows
    of a label or no signal in them.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    y = np.asarray([label is Tier.LARGE for label in labels])
    _check(x, y)
    strength, accuracy = _choose_strength(x, y, seed)
    if accuracy <= (chance := _by_chance(y)):
        raise CalibrationError(f"no signal: cross-validated accuracy {accuracy:.3f} is not above the {chance:.3f} that chance can give")
    model = LogisticRegression(C=strength, max_iter=2000).fit(x, y)
    simple, hard, logistic = _as_centroids(x, y, model.coef_[0], float(model.intercept_[0]), threshold)
    description: dict[str, Any] = {
        "source": source,
        "rows": len(y),
        "rows_large": int(y.sum()),
        "regularisation_c": strength,
        "cross_validated_accuracy": round(accuracy, 4),
        "seed": seed,
    }
    calibration = Calibration(KIND_LABEL, embedder, simple, hard, logistic, threshold, 0.0, description)
    share = float(np.mean([calibration.embedding_score(e.astype(np.float32)) >= threshold for e in x]))
    head = _assessment_head(ratings, y, threshold) if ratings is not None else None
    description["assessment"] = f"middle of {head.model}" if head is not None else "not fitted"
    if texts:
        description |= drift.described(_held_out(x, y, strength, threshold, seed), texts)
    return replace(calibration, large_share=round(share, 4), assessment=head, familiar=novelty.fit(texts or (), seed=seed))


def with_heads(calibration: Calibration, prepared: fit_label.Prepared, *, seed: int) -> Calibration:
    """The artefact with label heads fitted on the rows that its centroids were fitted on."""
    fitted = fit_label.fit(prepared, threshold=calibration.threshold, seed=seed)
    large = np.asarray([tier is Tier.LARGE for tier in prepared.labels.tiers])
    accuracy, bare = (float(((scores >= calibration.threshold) == large).mean()) for scores in (fitted.held_out, fitted.bare))
    description = {
        **calibration.description,
        "centroids_cross_validated_accuracy": calibration.description["cross_validated_accuracy"],
        "cross_validated_accuracy": round(accuracy, 4),
        "cross_validated_accuracy_without_embedding": round(bare, 4),
        **drift.described([float(score) for score in fitted.held_out], prepared.labels.texts),
    }
    share = round(float((fitted.held_out >= calibration.threshold).mean()), 4)
    return replace(calibration, label=fitted.heads, description=description, large_share=share)


def _assessment_head(ratings: Ratings, y: npt.NDArray[np.bool_], threshold: float) -> AssessmentHead | None:
    """None when the ratings do not rise with difficulty.

    Only the middle of the scale is fitted: a router that was itself trained on these rows is sure of all of them, so
    that a fitted slope would trust it far too much.
    """
    p = np.clip(np.asarray(ratings.values, dtype=np.float64), RATING_EDGE, 1 - RATING_EDGE)
    odds = np.log(p / (1 - p))
    model = LogisticRegression(C=1e3).fit(odds[:, None], y)
    slope = float(model.coef_[0][0])
    if slope <= 0:
        return None
    middle = -float(model.intercept_[0]) / slope
    return AssessmentHead(ratings.model, float(np.log(threshold / (1 - threshold))) - middle)


def _check(x: Matrix, y: npt.NDArray[np.bool_]) -> None:
    if x.ndim != 2 or len(x) != len(y):
        raise CalibrationError(f"{len(y)} labels for embeddings of shape {x.shape}")
    large = int(y.sum())
    if min(large, len(y) - large) < MIN_ROWS_PER_LABEL:
        raise CalibrationError(f"too few rows: {len(y) - large} small and {large} large, at least {MIN_ROWS_PER_LABEL} of each are needed")


def _by_chance(y: npt.NDArray[np.bool_]) -> float:
    """What always saying the larger label gets, and two standard errors: below that, an accuracy shows nothing."""
    share = max(float(y.mean()), 1 - float(y.mean()))
    return share + 2 * float(np.sqrt(share * (1 - share) / len(y)))


def _choose_strength(x: Matrix, y: npt.NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """The inverse regularisation with the best cross-validated accuracy; the smaller one wins a tie."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = [(float((cross_val_predict(LogisticRegression(C=c, max_iter=2000), x, y, cv=folds) == y).mean()), -c) for c in STRENGTHS]
    accuracy, negative = max(scores)
    return -negative, accuracy


def _held_out(x: Matrix, y: npt.NDArray[np.bool_], strength: float, threshold: float, seed: int) -> list[float]:
    """The embedding score of each row, by models that did not see it."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    odds = cross_val_predict(LogisticRegression(C=strength, max_iter=2000), x, y, cv=folds, method="decision_function")
    score = Logistic(1.0, float(np.log(threshold / (1 - threshold))))
    return [score(float(value)) for value in odds]


def _as_centroids(
    x: Matrix, y: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64], intercept: float, threshold: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Logistic]:
    """Two centroids and a logistic that equal the linear model, shifted so that its even odds score `threshold`."""
    middle = x.mean(axis=0)
    gap = float(np.linalg.norm(x[y].mean(axis=0) - x[~y].mean(axis=0)))
    step = weights / np.linalg.norm(weights) * gap / 2
    simple, hard = (middle - step).astype(np.float32), (middle + step).astype(np.float32)
    scale = float(np.linalg.norm(weights)) / (2 * gap)
    at_zero = scale * float(simple.astype(np.float64) @ simple - hard.astype(np.float64) @ hard)
    return simple, hard, Logistic(scale, intercept - at_zero + float(np.log(threshold / (1 - threshold))))
