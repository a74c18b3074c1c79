"""Fit the label heads: kernel ridge regression on kinds of task, held to P(large) by a logistic of held-out rows. Seeded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from serve_app.domain import Tier
from serve_app.routing import asked, lexical
from serve_app.routing.label_heads import CLIP, WORDS_PART, Array, Head, LabelHeads, Rows, gaussian, odds

Embed = Callable[[Sequence[str]], Array]
Matrix = npt.NDArray[np.float64]
PARTS = {"form": 1.0, "intents": 1.5, "lexical": 0.5}  # of the squared distance, chosen by cross-validation on the fit part, like all here
EMBEDDING = 3.0
RIDGE = 0.1
LEVEL = 0.3  # a constant in the kernel: a request near to no row gets about the mean
LEAST_SPREAD = 0.15  # a rare feature does not outweigh the others
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Labels:
    """One entry per row; `categories` may be empty strings: then the label is the kind."""

    texts: Sequence[str]
    tiers: Sequence[Tier]
    categories: Sequence[str]

    def kinds(self) -> list[tuple[str, Tier]]:
        return sorted(set(zip(self.categories, self.tiers, strict=True)))


@dataclass(frozen=True)
class Kernel:
    """What all rows are to each other: squared distances by hand features and by embedding, and the cosine of words; (n, n) each."""

    hand: Matrix
    vectors: Matrix
    words: Matrix

    def of(self, width: float, *, embedded: bool) -> Matrix:
        squared = self.hand + self.vectors if embedded else self.hand
        return np.asarray(gaussian(squared, width) + WORDS_PART * self.words, dtype=np.float64)


@dataclass(frozen=True)
class Prepared:
    """The rows as they are read and embedded."""

    labels: Labels
    read: Sequence[asked.Asked]
    vectors: Array


@dataclass(frozen=True, slots=True)
class Fitted:
    """`held_out` is each row's score by heads that did not see it, and `bare` the same without the embedding."""

    heads: LabelHeads
    held_out: Matrix
    bare: Matrix


def prepare(labels: Labels, embed: Embed) -> Prepared:
    """`embed` is asked once, for the views of all rows."""
    read = [asked.read(text) for text in labels.texts]
    return Prepared(labels, read, np.asarray(embed([one.view for one in read]), dtype=np.float32))


def fit(prepared: Prepared, *, threshold: float, seed: int) -> Fitted:
    """Even odds score exactly `threshold`. There must be `FOLDS` rows of each label."""
    labels = prepared.labels
    base = _base(prepared)
    kernel = _kernel(base.rows)
    targets = _targets(labels)
    large = np.asarray([tier is Tier.LARGE for tier in labels.tiers])
    folds = _folds(large, seed)
    heads: dict[str, Head] = {}
    found: dict[str, Matrix] = {}
    for name, embedded in (("full", True), ("bare", False)):
        width = sum(PARTS.values()) + (EMBEDDING if embedded else 0.0)  # a row's mean squared length: as good as any
        gram: Matrix = np.asarray(kernel.of(width, embedded=embedded) + LEVEL, dtype=np.float64)
        z = _held_out(gram, targets, folds, base.large)
        slope, offset = _logistic(z, large, threshold)
        weights = _solve(gram, targets)
        level = (LEVEL * weights.sum(axis=0)).astype(np.float32)
        heads[name] = Head(weights.astype(np.float32), level, width, slope, offset)
        found[name] = np.asarray(1.0 / (1.0 + np.exp(-(slope * z + offset))), dtype=np.float64)
    return Fitted(replace(base, full=heads["full"], bare=heads["bare"]), found["full"], found["bare"])


def _base(prepared: Prepared) -> LabelHeads:
    """Everything but the weights, which need it."""
    read = prepared.read
    hand = np.stack([one.hand for one in read])
    mean, scale = hand.mean(axis=0), np.maximum(hand.std(axis=0), LEAST_SPREAD)
    standard = np.clip((hand - mean) / scale, -CLIP, CLIP)
    weight = _weights(standard)
    idf = lexical.idf_of(one.grams for one in read)
    grams = [lexical.weighted(one.grams, idf) for one in read]
    scale_of_vectors = float(np.sqrt(EMBEDDING))
    rows = Rows(
        _half(standard * weight),
        _half(prepared.vectors * scale_of_vectors),
        np.cumsum([0] + [len(one.buckets) for one in grams]),
        np.concatenate([one.buckets for one in grams]).astype(np.uint16),
        _half(np.concatenate([one.counts for one in grams])),
        _half(idf),
    )
    kinds = np.asarray([tier is Tier.LARGE for _, tier in prepared.labels.kinds()])
    nothing = Head(np.zeros((0, len(kinds)), np.float32), np.zeros(len(kinds), np.float32), 1.0, 1.0, 0.0)
    return LabelHeads(mean, scale, weight, scale_of_vectors, rows, kinds, nothing, nothing)


def _half(values: npt.NDArray[Any]) -> Array:
    """As the artefact's file keeps them: the weights are fitted on what will be read."""
    kept: Array = values.astype(np.float16).astype(np.float32)
    return kept


def _weights(standard: Array) -> Array:
    """So that each block has its part of the mean squared length."""
    parts, start = [], 0
    for name, size in asked.blocks().items():
        length = float((standard[:, start : start + size] ** 2).sum(axis=1).mean())
        parts.append(np.full(size, np.sqrt(PARTS[name] / max(length, 1e-9))))
        start += size
    weights: Array = np.concatenate(parts).astype(np.float32)
    return weights


def _kernel(rows: Rows) -> Kernel:
    values, buckets = rows.values.astype(np.float64), rows.buckets.astype(np.int32)
    sparse = csr_matrix((values, buckets, rows.starts), shape=(len(rows.hand), lexical.BUCKETS))
    words = np.asarray((sparse @ sparse.T).todense()) / 2.0
    return Kernel(_distances(rows.hand), _distances(rows.vectors), words)


def _distances(values: Array) -> Matrix:
    wide = values.astype(np.float64)
    lengths = (wide**2).sum(axis=1)
    squared: Matrix = np.maximum(lengths[:, None] + lengths[None] - 2.0 * wide @ wide.T, 0.0)
    return squared


def _targets(labels: Labels) -> Matrix:
    kinds = {kind: column for column, kind in enumerate(labels.kinds())}
    targets = np.zeros((len(labels.texts), len(kinds)))
    for row, kind in enumerate(zip(labels.categories, labels.tiers, strict=True)):
        targets[row, kinds[kind]] = 1.0
    return targets


def _folds(large: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    """The fold of each row, stratified by label."""
    fold = np.zeros(len(large), dtype=np.int64)
    for number, (_, test) in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(large, large)):
        fold[test] = number
    return fold


def _held_out(gram: Matrix, targets: Matrix, fold: npt.NDArray[np.int64], large: npt.NDArray[np.bool_]) -> Matrix:
    """Odds of each row by heads that did not see it."""
    found: Matrix = np.zeros(len(targets))
    for number in range(FOLDS):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        weights = _solve(gram[np.ix_(train, train)], targets[train])
        found[test] = odds(gram[np.ix_(test, train)] @ weights, large)
    return found


def _solve(gram: Matrix, targets: Matrix) -> Matrix:
    return np.asarray(np.linalg.solve(gram + RIDGE * np.eye(len(gram)), targets), dtype=np.float64)


def _logistic(z: Matrix, large: npt.NDArray[np.bool_], threshold: float) -> tuple[float, float]:
    """Slope and offset, so that even odds score `threshold`."""
    model = LogisticRegression(C=1e3).fit(z[:, None], large)
    return float(model.coef_[0][0]), float(model.intercept_[0]) + float(np.log(threshold / (1 - threshold)))


def residual(heads: LabelHeads, labels: Labels) -> float:
    """How far the weights with the embedding are from solving the regression on these rows' labels: the largest error, for a check."""
    gram = _kernel(heads.rows).of(heads.full.width, embedded=True) + LEVEL
    weights = heads.full.weights.astype(np.float64)
    return float(np.abs(gram @ weights + RIDGE * weights - _targets(labels)).max())
