"""Signals to one score in [0, 1]. Pure: numpy and arithmetic.

The embedding score is the article's form with what it left out: the difference of the distances to a 'simple' and a
'complex' centroid goes through a logistic with a *fitted* scale and offset. Unfitted, unit vectors give 0.45-0.55 in
practice and never reach 0.65. The distances are squared: then the difference is linear in the embedding, and fitting
the two centroids and the scale is a convex problem with one answer (see `calibrate`).
"""

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.domain import Score, SignalState
from serve_app.errors import CalibrationError
from serve_app.routing import asked, heads, label_heads, novelty
from serve_app.routing.asked import Asked
from serve_app.routing.features import cut
from serve_app.routing.heads import Heads, Judged
from serve_app.routing.label_heads import LabelHeads
from serve_app.routing.novelty import Familiar

Vector = npt.NDArray[np.float32]
KIND_LABEL = "label"
FORMAT = 1
RATING_EDGE = 1e-4


@dataclass(frozen=True, slots=True)
class Logistic:
    scale: float
    offset: float

    def __call__(self, x: float) -> float:
        z = self.scale * x + self.offset
        return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))


@dataclass(frozen=True, slots=True)
class AssessmentHead:
    """Moves one router model's ratings so that its even odds lie where the embedding score's do; `shift` is in log-odds.

    Models use the scale differently: without this, a router whose middle is 0.45 pulls every score below 0.65.
    """

    model: str
    shift: float

    def __call__(self, rating: float) -> float:
        p = min(max(rating, RATING_EDGE), 1.0 - RATING_EDGE)
        return Logistic(1.0, self.shift)(math.log(p / (1.0 - p)))


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a text is embedded, and what the label heads read of it; None where the artefact has none."""

    embedded: str
    asked: Asked | None = None


@dataclass(frozen=True)
class Calibration:
    """A fitted artefact. `simple`, `complex`: shape (dim,). `sha256` names the file that it was read from.

    With `label`, those heads score, and the centroids stand beside them as the article's score.
    """

    kind: str
    embedder: str
    simple: Vector
    complex: Vector
    logistic: Logistic
    threshold: float
    large_share: float
    description: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    assessment: AssessmentHead | None = None
    familiar: Familiar | None = None
    label: LabelHeads | None = None

    @property
    def dim(self) -> int:
        return int(self.simple.shape[0])

    def embedding_score(self, embedding: Vector) -> float:
        """Score of one L2-normalised embedding, shape (dim,)."""
        if embedding.shape != self.simple.shape:
            raise CalibrationError(f"the embedding has shape {embedding.shape}, the calibration {self.simple.shape}")
        to_simple = embedding - self.simple
        to_complex = embedding - self.complex
        return self.logistic(float(to_simple @ to_simple - to_complex @ to_complex))

    def read(self, text: str, max_chars: int) -> list[Reading]:
        """What of a text is asked for, in every way to read it; without heads that is its beginning."""
        if self.label is None:
            return [Reading(cut(text, max_chars))]
        return [Reading(cut(found.view, max_chars), found) for found in asked.readings(text)]

    def score(self, reading: Reading, embedding: Vector | None) -> float | None:
        """The score by what is there; None without an embedding where the artefact has no heads that do without."""
        if self.label is not None and reading.asked is not None:
            return self.label.score(reading.asked, embedding)
        return None if embedding is None else self.embedding_score(embedding)

    def highest(self, readings: Sequence[Reading], embeddings: Sequence[Vector] | None) -> float | None:
        """The highest score of all readings, with their embeddings or without."""
        found = [self.score(one, None if embeddings is None else embeddings[place]) for place, one in enumerate(readings)]
        return max((score for score in found if score is not None), default=None)

    def novelty(self, text: str) -> float | None:
        """How unlike the fitted texts `text` is, in [0, 1]; None where this artefact does not tell."""
        return None if self.familiar is None else self.familiar.novelty(text)

    def assessment_score(self, rating: float, model: str) -> float:
        """The rating on the embedding score's scale; as it is where this artefact was not fitted with that router model."""
        return self.assessment(rating) if self.assessment is not None and self.assessment.model == model else rating


def combine(embedding: float | None, assessment: float | None, embedding_weight: float) -> float | None:
    """Weighted mean of the signals that are there; None when there is none."""
    if embedding is None:
        return assessment
    if assessment is None:
        return embedding
    return embedding_weight * embedding + (1.0 - embedding_weight) * assessment


def is_decisive(embedding: float, threshold: float, margin: float) -> bool:
    """Whether the embedding alone decides, so that the router LLM need not be waited for."""
    return abs(embedding - threshold) >= margin


def final(
    *,
    embedding: float | None,
    embedding_state: SignalState,
    assessment: float | None,
    assessment_state: SignalState,
    embedding_weight: float,
    calibration: str,
    embed_seconds: float = 0.0,
    assess_seconds: float = 0.0,
    novelty: float | None = None,
) -> Score:
    """One `Score` from the signals, rounded to 6 digits so that a printed score is the score."""
    value = combine(embedding, assessment, embedding_weight)
    return Score(
        value=None if value is None else round(value, 6),
        embedding=embedding,
        embedding_state=embedding_state,
        assessment=assessment,
        assessment_state=assessment_state,
        calibration=calibration,
        embed_seconds=embed_seconds,
        assess_seconds=assess_seconds,
        novelty=None if novelty is None else round(novelty, 6),
        embedding_weight=embedding_weight if embedding is not None and assessment is not None else None,
    )


def of_gain(judged: Judged | None, state: SignalState, calibration: str, embed_seconds: float = 0.0) -> Score:
    """One `Score` from the learned heads; `state` is the embedding's, SKIPPED where none is needed. None: they said nothing."""
    if judged is None:
        return Score(value=None, embedding_state=state, calibration=calibration, embed_seconds=embed_seconds)
    return Score(
        value=round(judged.score, 6),
        embedding_state=state,
        calibration=calibration,
        embed_seconds=embed_seconds,
        p_small=round(judged.weak, 6),
        p_large=round(judged.strong, 6),
        novelty=round(judged.novelty, 6),
    )


def dump(calibration: Calibration) -> bytes:
    """The artefact as an npz file without pickles; the same values give the same bytes."""
    meta = {
        "format": FORMAT,
        "kind": calibration.kind,
        "embedder": calibration.embedder,
        "scale": calibration.logistic.scale,
        "offset": calibration.logistic.offset,
        "threshold": calibration.threshold,
        "large_share": calibration.large_share,
        "assessment": asdict(calibration.assessment) if calibration.assessment is not None else None,
        "description": calibration.description,
    }
    text = json.dumps(meta, sort_keys=True, ensure_ascii=True).encode()
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {} if calibration.familiar is None else calibration.familiar.arrays()
    arrays |= {} if calibration.label is None else label_heads.arrays(calibration.label)
    np.savez_compressed(buffer, simple=calibration.simple, complex=calibration.complex, meta=np.frombuffer(text, dtype=np.uint8), **arrays)
    return buffer.getvalue()


Artefact = Calibration | Heads


def load(data: bytes, embedder: str | None = None) -> Artefact:
    """Read an artefact of either kind. Raises `CalibrationError` when it is broken or was made with another embedder than `embedder`.

    One that needs no embedding suits every embedder.
    """
    artefact: Artefact = heads.load(data) if _kind(data) == heads.KIND_GAIN else _load_label(data)
    if embedder is not None and artefact.embedder and artefact.embedder != embedder:
        raise CalibrationError(f"the calibration was made with embedder {artefact.embedder}, this one is {embedder}")
    return artefact


def _kind(data: bytes) -> str:
    """Empty where it cannot be read: then it is no artefact, which `_load_label` says."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return str(json.loads(arrays["meta"].tobytes())["kind"])
    except Exception:  # noqa: BLE001 - whatever numpy, zipfile and json raise on bytes that are no artefact
        return ""


def _load_label(data: bytes) -> Calibration:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            meta = json.loads(arrays["meta"].tobytes())
            calibration = Calibration(
                kind=str(meta["kind"]),
                embedder=str(meta["embedder"]),
                simple=np.asarray(arrays["simple"], dtype=np.float32),
                complex=np.asarray(arrays["complex"], dtype=np.float32),
                logistic=Logistic(float(meta["scale"]), float(meta["offset"])),
                threshold=float(meta["threshold"]),
                large_share=float(meta["large_share"]),
                description=dict(meta["description"]),
                sha256=hashlib.sha256(data).hexdigest(),
                assessment=_head(meta["assessment"]),
                familiar=novelty.read(arrays),
                label=label_heads.read(arrays),
            )
    except Exception as error:  # whatever numpy, zipfile and json raise on bytes that are no artefact
        raise CalibrationError(f"not a calibration artefact: {error}") from error
    if meta.get("format") != FORMAT or calibration.kind != KIND_LABEL:
        raise CalibrationError(f"unknown calibration format {meta.get('format')!r} or kind {calibration.kind!r}")
    _check(calibration)
    return calibration


def _head(meta: dict[str, Any] | None) -> AssessmentHead | None:
    return None if meta is None else AssessmentHead(str(meta["model"]), float(meta["shift"]))


def _check(calibration: Calibration) -> None:
    """Refuse numbers that would give no score, or one that means nothing."""
    simple, hard, logistic = calibration.simple, calibration.complex, calibration.logistic
    if simple.ndim != 1 or simple.shape != hard.shape:
        raise CalibrationError(f"not a calibration artefact: centroids of shape {simple.shape} and {hard.shape}")
    numbers = (logistic.scale, logistic.offset, calibration.assessment.shift if calibration.assessment is not None else 0.0)
    finite = np.isfinite(simple).all() and np.isfinite(hard).all() and all(map(math.isfinite, numbers))
    if calibration.label is not None and calibration.label.dim != calibration.dim:
        raise CalibrationError("not a calibration artefact: its label heads are for another embedding than its centroids")
    if not finite or not 0.0 <= calibration.threshold <= 1.0:
        raise CalibrationError("not a calibration artefact: its numbers are out of range")
