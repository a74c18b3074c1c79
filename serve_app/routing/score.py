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
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.domain import Score, SignalState
from serve_app.errors import CalibrationError
from serve_app.routing import heads
from serve_app.routing.heads import Heads, Judged

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


@dataclass(frozen=True)
class Calibration:
    """A fitted artefact. `simple`, `complex`: shape (dim,). `sha256` names the file that it was read from."""

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
    np.savez(buffer, simple=calibration.simple, complex=calibration.complex, meta=np.frombuffer(text, dtype=np.uint8))
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
    if not finite or not 0.0 <= calibration.threshold <= 1.0:
        raise CalibrationError("not a calibration artefact: its numbers are out of range")
