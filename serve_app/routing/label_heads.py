"""The fitted score of a `label` artefact: P(large), from the request as `asked` reads it, with the embedding or without. Pure numpy.

Kernel ridge regression on the fitted rows, which the artefact carries: how near a request is to each of them in hand features and
embedding (a Gaussian), and in its words and byte runs (a cosine). It predicts the kinds of task (category and label); large ones
against small ones, half by their sums and half by the strongest of each, is what a logistic turns into the score. The second set
of weights does without the embedding: an embedder that is late costs accuracy, not the decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from serve_app.errors import CalibrationError
from serve_app.routing import lexical
from serve_app.routing.asked import Asked, blocks

Array = npt.NDArray[np.float32]
Real = TypeVar("Real", bound=np.floating[Any])
CLIP = 4.0  # standard deviations; beyond them a hand feature says no more
WORDS_PART = 0.3  # of words and byte runs in the kernel
PREFIX = "label_"


@dataclass(frozen=True)
class Postings:
    """`begins`: (BUCKETS + 1,), where a bucket's `owners`, which are rows, and `values` begin."""

    begins: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    values: Array

    def products(self, buckets: lexical.Buckets, counts: Array, rows: int) -> npt.NDArray[np.float64]:
        """The inner product of a request's n-grams with those of each of the `rows`."""
        first = self.begins[buckets]
        lengths = self.begins[buckets + 1] - first
        ends = np.cumsum(lengths)
        places = np.repeat(first - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
        weights = (self.values[places] * np.repeat(counts, lengths)).astype(np.float64)
        sums: npt.NDArray[np.float64] = np.bincount(self.owners[places], weights, rows).astype(np.float64)
        return sums


@dataclass(frozen=True)
class Rows:
    """The fitted rows. `hand`: (n, hand) standardised and weighted; `vectors`: (n, dim) weighted embeddings.

    `starts`: (n + 1,), where a row's `buckets` and `values` begin; `idf`: (BUCKETS,).
    """

    hand: Array
    vectors: Array
    starts: npt.NDArray[np.int64]
    buckets: npt.NDArray[np.uint16]
    values: Array
    idf: Array

    @cached_property
    def hand_lengths(self) -> Array:
        return _lengths(self.hand)

    @cached_property
    def lengths(self) -> Array:
        return _lengths(self.vectors)

    @cached_property
    def postings(self) -> Postings:
        """The same values by bucket: a request looks at its own buckets only."""
        order = np.argsort(self.buckets, kind="stable")
        begins = np.searchsorted(self.buckets[order], np.arange(lexical.BUCKETS + 1))
        owners = np.repeat(np.arange(len(self.hand)), np.diff(self.starts))
        return Postings(begins, owners[order], self.values[order])

    def near(self, grams: lexical.Grams) -> Array:
        """The cosine with each row, words and byte runs each half of it; (n,)."""
        weighted = lexical.weighted(grams, self.idf)
        sums = self.postings.products(weighted.buckets, weighted.counts, len(self.hand))
        near: Array = (sums / 2.0).astype(np.float32)
        return near


@dataclass(frozen=True)
class Head:
    """`weights`: (n, kinds), `level`: (kinds,), what a request near to no row gets. `width`: of the Gaussian. The logistic is of odds."""

    weights: Array
    level: Array
    width: float
    slope: float
    offset: float


@dataclass(frozen=True)
class LabelHeads:
    """`mean`, `scale`, `weight`: (hand,); `embedding_weight` scales an embedding beside them. `large`: (kinds,), which kinds are."""

    mean: Array
    scale: Array
    weight: Array
    embedding_weight: float
    rows: Rows
    large: npt.NDArray[np.bool_]
    full: Head
    bare: Head

    @property
    def dim(self) -> int:
        return int(self.rows.vectors.shape[1])

    def score(self, asked: Asked, embedding: Array | None) -> float:
        """P(large) on the artefact's scale; without the embedding by the second set of weights."""
        distance = _squared(self.hand(asked.hand), self.rows.hand, self.rows.hand_lengths)
        head = self.bare
        if embedding is not None:
            if embedding.shape != (self.dim,):
                raise CalibrationError(f"the embedding has shape {embedding.shape}, the calibration ({self.dim},)")
            distance, head = (
                distance + _squared(embedding * np.float32(self.embedding_weight), self.rows.vectors, self.rows.lengths),
                self.full,
            )
        kernel = gaussian(distance, head.width) + np.float32(WORDS_PART) * self.rows.near(asked.grams)
        return logistic(head, odds(kernel @ head.weights + head.level, self.large))

    def hand(self, raw: Array) -> Array:
        weighted: Array = np.clip((raw - self.mean) / self.scale, -CLIP, CLIP) * self.weight
        return weighted


def _lengths(rows: Array) -> Array:
    lengths: Array = np.einsum("ij,ij->i", rows, rows)
    return lengths


def gaussian(squared: npt.NDArray[Real], width: float) -> npt.NDArray[Real]:
    """The part of the kernel that is not of words."""
    near: npt.NDArray[Real] = (1.0 - WORDS_PART) * np.exp(-squared / width)
    return near


def odds(kinds: npt.NDArray[np.floating[Any]], large: npt.NDArray[np.bool_]) -> Any:
    """Large kinds against small ones, in the last axis."""
    for_large, for_small = kinds[..., large], kinds[..., ~large]
    return 0.5 * (for_large.sum(-1) - for_small.sum(-1) + for_large.max(-1) - for_small.max(-1))


def logistic(head: Head, value: float) -> float:
    return float(1.0 / (1.0 + np.exp(-(head.slope * float(value) + head.offset))))


def _squared(one: Array, rows: Array, lengths: Array) -> Array:
    """Squared distances of one vector to all rows, whose squared lengths are known."""
    squared: Array = np.maximum(lengths + one @ one - np.float32(2.0) * (rows @ one), np.float32(0.0))
    return squared


_ROWS = tuple(field.name for field in fields(Rows))
_TYPES: dict[str, Any] = {"starts": np.int64, "buckets": np.uint16}


def arrays(heads: LabelHeads) -> dict[str, npt.NDArray[Any]]:
    """What an artefact's file holds of it; half precision where that changes no decision."""
    found: dict[str, npt.NDArray[Any]] = {name: getattr(heads, name) for name in ("mean", "scale", "weight", "large")}
    for name in _ROWS:
        value = getattr(heads.rows, name)
        found[name] = value if name in _TYPES else value.astype(np.float16)
    for name, head in (("full", heads.full), ("bare", heads.bare)):
        found |= {f"{name}_weights": head.weights, f"{name}_level": head.level}
        found[f"{name}_numbers"] = np.array([head.width, head.slope, head.offset])
    found["embedding_weight"] = np.array([heads.embedding_weight])
    return {PREFIX + name: value for name, value in found.items()}


def read(file: Mapping[str, Any]) -> LabelHeads | None:
    """From an artefact's file; None where it holds none. Raises `CalibrationError` for numbers that would give no score."""
    if f"{PREFIX}weight" not in file:
        return None
    found = {name.removeprefix(PREFIX): np.asarray(file[name]) for name in file if name.startswith(PREFIX)}
    rows = Rows(**{name: found[name].astype(_TYPES.get(name, np.float32)) for name in _ROWS})
    full, bare = (
        Head(found[f"{name}_weights"].astype(np.float32), found[f"{name}_level"].astype(np.float32), *map(float, found[f"{name}_numbers"]))
        for name in ("full", "bare")
    )
    mean, scale, weight = (found[name].astype(np.float32) for name in ("mean", "scale", "weight"))
    heads = LabelHeads(mean, scale, weight, float(found["embedding_weight"][0]), rows, found["large"].astype(bool), full, bare)
    _check(heads)
    return heads


def _check(heads: LabelHeads) -> None:
    rows, hand, count, kinds = heads.rows, sum(blocks().values()), len(heads.rows.hand), len(heads.large)
    shapes = (heads.mean.shape, heads.scale.shape, heads.weight.shape, rows.hand.shape[1:], rows.idf.shape, rows.starts.shape)
    if shapes != ((hand,), (hand,), (hand,), (hand,), (lexical.BUCKETS,), (count + 1,)) or len(rows.vectors) != count:
        raise CalibrationError(f"not a calibration artefact for this version: its label heads have the shapes {shapes}")
    if any(head.weights.shape != (count, kinds) or head.level.shape != (kinds,) for head in (heads.full, heads.bare)):
        raise CalibrationError("not a calibration artefact: the weights of its label heads fit neither its rows nor its kinds")
    steps = np.diff(rows.starts)
    held = rows.starts[0] == 0 and (steps >= 0).all() and rows.starts[-1] == len(rows.buckets) == len(rows.values)
    numbers = [heads.mean, heads.scale, heads.weight, rows.hand, rows.vectors, rows.values, rows.idf]
    numbers += [part for head in (heads.full, heads.bare) for part in (head.weights, head.level, np.array([head.slope, head.offset]))]
    finite = all(np.isfinite(part).all() for part in numbers) and np.isfinite(heads.embedding_weight)
    sane = all(head.width > 0 and head.slope > 0 for head in (heads.full, heads.bare)) and (heads.scale > 0).all()
    if not held or not finite or not sane or not 0 < int(heads.large.sum()) < kinds:
        raise CalibrationError("not a calibration artefact: the numbers of its label heads are out of range")
