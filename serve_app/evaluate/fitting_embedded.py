"""What an embedding adds to the fitted text: a smooth model of it, and the nearest fitted rows. Used where cross-validation
prefers it by a clear margin, for it costs an embedder and the text alone costs nothing.

How much they count is one of five levels. A level must be better by `DEARER` than the next lower one, which is about the noise
between two splits of a thousand rows: the choice by plain cross-validation was worse than no choice (docs/routing-quality-ways.md).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.corpus import Array, Index, ranks
from serve_app.evaluate.routing_metrics import Outcomes
from serve_app.routing import neighbours
from serve_app.routing.heads import Mix, routed
from serve_app.routing.neighbours import GRID, Evidence

FloatMatrix = npt.NDArray[np.float64]
Split = list[tuple[Index, Index]]
LEVELS = (0.0, 0.25, 0.5, 1.0, 2.0)
DEARER = 0.004
STRENGTH = 10.0
LANDMARKS = 1500  # rows that the smooth model is made of; drawn where there are more
DIFFERENT = 0.02  # of decisions that the text alone may make otherwise than the whole
STEPS = 200  # of the rank
FLAT = 1e-3  # of the text's spread: a part that varies less is left out


@dataclass(frozen=True)
class Plan:
    """`parts`: what the text, the smooth model and the nearest rows count; `held_out`: their sum of each row, above the mean of all."""

    level: float
    parts: Array
    held_out: FloatMatrix
    difficulty: float


def plan(
    embeddings: Array, outcomes: Outcomes, splits: list[Split], text: list[FloatMatrix], *, difficulty: float, seed: int
) -> Plan | None:
    """The level that cross-validation prefers, None for the text alone. `text`: its held-out predictions in each split."""
    targets = np.stack([outcomes.weak, outcomes.strong], axis=1)
    mix, mean = Mix(difficulty), targets.mean(axis=0)
    found = [_held_out(embeddings, targets, split, seed) for split in splits]
    spread = [float(np.std(routed(one - mean, mix))) for one in text[:1]] + [float(np.std(routed(one, mix))) for one in found[0]]
    plans = [_at(level, spread, text, found, mean) for level in LEVELS]
    areas = [np.mean([metrics.apgr(routed(one, mix), outcomes) for one in sums]) - i * DEARER for i, (_, sums) in enumerate(plans)]
    best = int(np.argmax(np.round(areas, 6)))
    return None if best == 0 else Plan(LEVELS[best], plans[best][0], plans[best][1][0], difficulty)


def assemble(plan: Plan, embeddings: Array, outcomes: Outcomes, alone: npt.NDArray[np.float64], *, seed: int) -> tuple[Evidence, Any]:
    """The evidence of all rows, and the held-out score of each by it."""
    above = _above(np.stack([outcomes.weak, outcomes.strong], axis=1))
    kept = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[: neighbours.MAX_ROWS])
    values = routed(plan.held_out, Mix(plan.difficulty))
    knots = knots_of(values)
    scores = ranks(values, knots)
    evidence = Evidence(
        rows=(rows := _stored(embeddings[kept])),
        above=above[kept].astype(np.float32),
        pull=_pull(rows, above[kept], seed),
        parts=plan.parts,
        knots=knots,
        weak_curve=curve(plan.held_out[:, 0], outcomes.weak),
        strong_curve=curve(plan.held_out[:, 1], outcomes.strong),
        margins=np.array([margin(alone, scores, float(threshold)) for threshold in GRID], dtype=np.float32),
    )
    return evidence, scores


def summary(plan: Plan, outcomes: Outcomes, text: FloatMatrix) -> dict[str, Any]:
    """What the artefact says of it."""
    area = metrics.apgr(routed(text, Mix(plan.difficulty)), outcomes)
    return {"embedding_level": plan.level, "apgr_text_alone": round(area, 4)}


def margin(alone: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], threshold: float) -> float:
    """How far from `threshold` the text must be, so that at most `DIFFERENT` of all rows are decided otherwise than by the whole."""
    otherwise = (alone >= threshold) != (scores >= threshold)
    distances = np.sort(np.abs(alone - threshold)[otherwise])[::-1]
    allowed = int(DIFFERENT * len(alone))
    return float(distances[allowed]) if len(distances) > allowed else 0.0


def knots_of(values: npt.NDArray[np.float64]) -> Array:
    return np.quantile(values, np.linspace(0.0, 1.0, STEPS + 1)).astype(np.float32)


def curve(raw: npt.NDArray[np.float64], outcome: npt.NDArray[np.float64]) -> Array:
    """Isotonic regression of the outcome on a held-out prediction, as (2, n) points."""
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(raw, outcome)
    return np.stack([model.X_thresholds_, model.y_thresholds_]).astype(np.float32)


def _at(level: float, spread: list[float], text: list[FloatMatrix], found: list[list[FloatMatrix]], mean: FloatMatrix) -> tuple[Array, Any]:
    """The weights of one level and the sums of all splits: each part by its spread, so that a level means the same on all rows."""
    sizes = [spread[0] / one if one > FLAT * spread[0] else 0.0 for one in spread[1:]]
    parts = np.array([1.0, *(level / 2 * size for size in sizes)], dtype=np.float32)
    sums = [mean + parts[0] * (one - mean) + parts[1] * smooth + parts[2] * near for one, (smooth, near) in zip(text, found, strict=True)]
    return parts, sums


def _held_out(embeddings: Array, targets: FloatMatrix, split: Split, seed: int) -> list[FloatMatrix]:
    """What the smooth model and the nearest rows say of held-out rows, above the mean of the fold."""
    smooth, near = np.zeros_like(targets), np.zeros_like(targets)
    for train, test in split:
        above, rows = _above(targets[train]), _stored(embeddings[train])
        cosines = embeddings[test] @ rows.T
        smooth[test] = _centred(neighbours.kernel(cosines) @ _pull(rows, above, seed, STRENGTH * len(train) / len(targets)))
        near[test] = _centred(neighbours.near(cosines, above.astype(np.float32)))
    return [smooth, near]


def _centred(predicted: Array) -> Array:
    """What says the same of every row of a fold says nothing."""
    centred: Array = predicted - predicted.mean(axis=0)
    return centred


def _above(targets: FloatMatrix) -> FloatMatrix:
    above: FloatMatrix = targets - targets.mean(axis=0)
    return above


def _pull(rows: Array, above: FloatMatrix, seed: int, strength: float = STRENGTH) -> Array:
    """Kernel ridge regression, exact up to `LANDMARKS` rows; beyond them the rest is projected on those."""
    some = np.sort(np.random.default_rng(seed).permutation(len(rows))[:LANDMARKS])
    whole = neighbours.kernel(rows @ rows[some].T).astype(np.float64)
    ridge = strength * np.eye(len(some))
    if len(some) == len(rows):
        found = np.linalg.solve(whole + ridge, above)
    else:
        found = np.linalg.solve(whole.T @ whole + strength * whole[some] + FLAT * ridge, whole.T @ above)
    pull = np.zeros((len(rows), 2), dtype=np.float32)
    pull[some] = found
    return pull


def _stored(embeddings: Array) -> Array:
    """As the artefact's file holds them."""
    return embeddings.astype(np.float16).astype(np.float32)
