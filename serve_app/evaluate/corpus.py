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
AT_ONCE = 512  # rows whose cosines are held in memory
HALF = 0.5


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
    """Of each row: where its routed value stands in [0, 1], both calibrated probabilities, and how new it is. Shape (rows,).

    `alone` is the score of the text without its embedding: the same where there is none. `asked`: whether the embedder is asked
    at the threshold that sends half to the large tier.
    """

    score: Vector
    weak: Vector
    strong: Vector
    novelty: Vector
    alone: Vector
    asked: Vector


def predict(heads: Heads, corpus: Corpus) -> Predicted:
    view, evidence = heads.view, heads.evidence
    grams = [lexical.Grams(row.indices.astype(np.int64), row.data) for row in corpus.counts]
    dense = view.dense(corpus.hand)
    familiar = np.array([heads.familiarity(view.known(one), view.density(row)) for one, row in zip(grams, dense, strict=True)])
    above = np.asarray(features_of(corpus, view) @ np.vstack([heads.dense, heads.sparse]), dtype=np.float32)
    raw = heads.intercept + familiar[:, None] * np.asarray(above, dtype=np.float64)
    alone, asked = ranks(routed(raw, heads.mix), heads.knots), np.zeros(len(familiar))
    if evidence is None or corpus.embeddings is None:
        score = alone
    else:
        parts = [evidence.add(above[i : i + AT_ONCE], corpus.embeddings[i : i + AT_ONCE]) for i in range(0, len(above), AT_ONCE)]
        raw = heads.intercept + familiar[:, None] * np.concatenate(parts).astype(np.float64)
        score = ranks(routed(raw, heads.mix), evidence.knots)
        asked = np.array([not heads.clear(one, HALF) for one in alone], dtype=np.float64)
    curves = heads if evidence is None or corpus.embeddings is None else evidence
    return Predicted(
        score=score,
        weak=np.interp(raw[:, 0], *curves.weak_curve),
        strong=np.interp(raw[:, 1], *curves.strong_curve),
        novelty=1.0 - familiar,
        alone=alone,
        asked=asked,
    )


def ranks(values: Vector, knots: Array) -> Vector:
    found: Vector = np.interp(values, knots, np.linspace(0.0, 1.0, len(knots)))
    return found


def features_of(corpus: Corpus, view: View) -> sp.csr_matrix:
    """All rows at once: what `View.dense` and `View.sparse` give for each, side by side."""
    edge = 1 << lexical.WORD_BITS
    weighted = (corpus.counts @ sp.diags_array(view.idf)).tocsr()
    parts = (sp.csr_matrix(view.dense(corpus.hand)), normalize(weighted[:, :edge]), normalize(weighted[:, edge:]))
    features = sp.hstack(parts, format="csr", dtype=np.float32)
    features.eliminate_zeros()
    return features
