"""Groups of prompts that are about the same, with the words that set each apart. For reading, not for deciding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer

from serve_app.evaluate.audit_totals import Example

Array = npt.NDArray[np.float32]
MOST = 8
ROWS_EACH = 12  # fewer rows on average make no group
TERMS = 6
DIGITS = 4  # two embeddings that agree in these are the same prompt again
EXAMPLES = 3
WORD = r"(?u)\b[^\W\d_]{3,}\b"


@dataclass(frozen=True, slots=True)
class Cluster:
    """`share` is of the sample; `examples` are the nearest to the middle."""

    share: float
    terms: tuple[str, ...]
    examples: tuple[Example, ...]


def clusters(sample: Sequence[Example], vectors: Array, *, seed: int) -> list[Cluster]:
    """The largest first. `vectors`: L2-normalised embeddings of the sample, (rows, dim)."""
    count = min(MOST, len(sample) // ROWS_EACH, len(np.unique(vectors.round(DIGITS), axis=0))) or 1
    model = KMeans(count, n_init=4, random_state=seed).fit(vectors)
    names, weights = _terms([one.text for one in sample])
    distances = model.transform(vectors)
    found = []
    for each in range(count):
        inside = np.flatnonzero(model.labels_ == each)
        contrast = weights[inside].mean(axis=0) - weights.mean(axis=0) if count > 1 else weights.mean(axis=0)
        best = [place for place in np.argsort(-contrast, kind="stable")[:TERMS] if contrast[place] > 0]
        nearest = inside[np.argsort(distances[inside, each], kind="stable")[:EXAMPLES]]
        found.append(Cluster(len(inside) / len(sample), tuple(names[place] for place in best), tuple(sample[place] for place in nearest)))
    return sorted(found, key=lambda one: -one.share)


def _terms(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Words with their TF-IDF, (texts, words); none where the texts have no words in common."""
    try:
        vectoriser = TfidfVectorizer(token_pattern=WORD, stop_words="english", min_df=2, max_df=0.9, sublinear_tf=True, max_features=4000)
        weights = vectoriser.fit_transform(texts)
    except ValueError:
        return [], np.zeros((len(texts), 0))
    return vectoriser.get_feature_names_out().tolist(), np.asarray(weights.toarray(), dtype=np.float64)
