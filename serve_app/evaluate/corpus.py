"""Texts read once into matrices, and what an artefact says of all of them at a time: the same numbers as `Heads.judge`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from serve_app.evaluate.routing_metrics import Vector
from serve_app.routing import lexical
from serve_app.routing.heads import Heads, View, routed

Array = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Corpus:
    """What is read from the texts once: `hand` (rows, hand), `counts` (rows, BUCKETS), `embeddings` (rows, dim) or None."""

    hand: Array
    counts: sp.csr_matrix
    embeddings: Array | None = None

    @staticmethod
    def of(texts: Sequence[str], embeddings: Array | None = None) -> "Corpus":
        grams = [lexical.grams(text) for text in texts]
        edges = np.cumsum([0, *(len(one.buckets) for one in grams)])
        cells = (np.concatenate([one.counts for one in grams]), np.concatenate([one.buckets for one in grams]), edges)
        counts = sp.csr_matrix(cells, shape=(len(texts), lexical.BUCKETS))
        return Corpus(np.stack([lexical.hand(text) for text in texts]), counts, embeddings)

    def take(self, index: Index) -> "Corpus":
        return Corpus(self.hand[index], self.counts[index], None if self.embeddings is None else self.embeddings[index])


@dataclass(frozen=True, slots=True)
class Predicted:
    """Of each row: where its routed value stands in [0, 1], both calibrated probabilities, and how new it is. Shape (rows,)."""

    score: Vector
    weak: Vector
    strong: Vector
    novelty: Vector


def predict(heads: Heads, corpus: Corpus) -> Predicted:
    view = heads.view
    grams = [lexical.Grams(row.indices.astype(np.int64), row.data) for row in corpus.counts]
    dense = dense_of(corpus, view)
    familiar = np.array([heads.familiarity(view.known(one), view.density(row)) for one, row in zip(grams, dense, strict=True)])
    raw = features_of(corpus, view) @ np.vstack([heads.dense, heads.sparse])
    raw = heads.intercept + familiar[:, None] * np.asarray(raw, dtype=np.float64)
    return Predicted(
        score=np.interp(routed(raw, heads.mix), heads.knots, np.linspace(0.0, 1.0, len(heads.knots))),
        weak=np.interp(raw[:, 0], *heads.weak_curve),
        strong=np.interp(raw[:, 1], *heads.strong_curve),
        novelty=1.0 - familiar,
    )


def dense_of(corpus: Corpus, view: View) -> Array:
    return view.dense(corpus.hand, corpus.embeddings if view.dim else None)


def features_of(corpus: Corpus, view: View) -> sp.csr_matrix:
    """All rows at once: what `View.dense` and `View.sparse` give for each, side by side."""
    edge = 1 << lexical.WORD_BITS
    weighted = (corpus.counts @ sp.diags_array(view.idf)).tocsr()
    parts = (sp.csr_matrix(dense_of(corpus, view)), normalize(weighted[:, :edge]), normalize(weighted[:, edge:]))
    features = sp.hstack(parts, format="csr", dtype=np.float32)
    features.eliminate_zeros()
    return features
