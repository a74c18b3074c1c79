"""The learned score: from a text to p(small right), p(large right) and where their difference stands. Pure numpy.

Three views of the text: hand features through random Fourier features (a smooth non-linear model whose parameters hold no
row that it was fitted on), hashed words, hashed byte runs. Both heads are linear in them, so that the gain is linear too.
Where the embedding said more, an artefact holds `Evidence` as well, which is added to them. The text alone still gives a
score: it decides by itself where it is clear, and where the embedder is late or gone.

What is routed on is the gain, or a mixture with difficulty where the fit found that better; both shrink to the base rate
of the fitted rows as a text becomes unlike all of them. `score` is the share of the fitted rows below it: a threshold of
1 - s sends a share s of such traffic to the large tier. It is a rank, not a probability; the calibrated probabilities
stand beside it.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.errors import CalibrationError
from serve_app.routing import lexical, neighbours
from serve_app.routing.neighbours import Evidence

Array = npt.NDArray[np.float32]
FORMAT = 2
KIND_GAIN = "gain"
CLIP = 4.0  # standard deviations; beyond them a hand feature says no more
_OF_HEADS = ("dense", "sparse", "intercept", "knots", "weak_curve", "strong_curve")
_OF_VIEW = ("mean", "scale", "omega", "phase", "idf", "centre")


@dataclass(frozen=True, slots=True)
class Mix:
    """What is routed on: gain + `difficulty` * (1 - p(small right)), each as fitted.

    A text is familiar when at least the share `known` of its words was seen in fitting and its hand features lie where at
    least `density` of the kernel is; both are low percentiles of held-out rows.
    """

    difficulty: float = 0.0
    known: float = 0.0
    density: float = 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """`novelty` is 0 for a text like the fitted rows and 1 for one unlike all of them."""

    score: float
    weak: float
    strong: float
    novelty: float

    @property
    def gain(self) -> float:
        return self.strong - self.weak


@dataclass(frozen=True)
class View:
    """From a text to features; what it holds was counted on the fitted texts, without their outcomes.

    `mean`, `scale`: (hand,). `omega`: (hand, fourier), `phase`: (fourier,).
    `idf`: (BUCKETS,). `centre`: the mean Fourier features of the fitted texts.
    """

    mean: Array
    scale: Array
    omega: Array
    phase: Array
    idf: Array
    centre: Array

    def dense(self, hand: Array) -> Array:
        """Fourier features of a row, or of rows, of hand features."""
        standard = np.clip((hand - self.mean) / self.scale, -CLIP, CLIP)
        waves: Array = np.float32(np.sqrt(2.0 / len(self.phase))) * np.cos(standard @ self.omega + self.phase)
        return waves.astype(np.float32)

    def sparse(self, grams: lexical.Grams) -> lexical.Grams:
        return lexical.weighted(grams, self.idf)

    def known(self, grams: lexical.Grams) -> float:
        """The share of the text's words and pairs that were seen in fitting; 0 for a text without words."""
        words = grams.buckets[grams.buckets < 1 << lexical.WORD_BITS]
        return float((self.idf[words] > 0).mean()) if len(words) else 0.0

    def density(self, dense: Array) -> float:
        """How much of the kernel lies at the text: highest amid the fitted rows, about 0 far from all of them."""
        return float(dense @ self.centre)


@dataclass(frozen=True)
class Heads:
    """A fitted artefact. Column 0 of `dense`, `sparse` and `intercept` predicts the small tier's score, column 1 the large one's.

    `knots`: routed values at equal steps of the fitted rows' share. `weak_curve`, `strong_curve`: (2, n), raw prediction and
    calibrated probability, rising. `large_share` is what `threshold` should send to the large tier; `sha256` names the file it was
    read from. `embedder` is empty where none is used, and then there is no `evidence`.
    """

    view: View
    dense: Array
    sparse: Array
    intercept: Array
    knots: Array
    weak_curve: Array
    strong_curve: Array
    mix: Mix
    threshold: float
    embedder: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    large_share: float = 0.5
    sha256: str = ""
    evidence: Evidence | None = None

    @property
    def kind(self) -> str:
        return KIND_GAIN

    @property
    def dim(self) -> int:
        """Numbers of the embedding that it may use, 0 where it uses none."""
        return 0 if self.evidence is None else self.evidence.dim

    def judge(self, text: str, embedding: Array | None = None) -> Judged:
        """Score one text, by itself or with its embedding. Raises `CalibrationError` when that is of another size."""
        grams = lexical.grams(text)
        dense = self.view.dense(lexical.hand(text))
        alone = self.raw(dense, self.view.sparse(grams)) - self.intercept
        familiar = self.familiarity(self.view.known(grams), self.view.density(dense))
        if self.evidence is None or embedding is None:
            return self._judged(alone, familiar, self)
        return self._judged(self.evidence.add(alone, embedding), familiar, self.evidence)

    def clear(self, score: float, threshold: float) -> bool:
        """Whether the score of a text alone decides at `threshold`, so that nobody need ask for its embedding."""
        return self.evidence is None or abs(score - threshold) > self.evidence.margin(threshold)

    def _judged(self, above: Array, familiar: float, by: "Heads | Evidence") -> Judged:
        raw = self.intercept + np.float32(familiar) * above
        weak, strong = (float(np.interp(value, *curve)) for value, curve in zip(raw, (by.weak_curve, by.strong_curve), strict=True))
        return Judged(rank(float(routed(raw, self.mix)), by.knots), weak, strong, 1.0 - familiar)

    def raw(self, dense: Array, sparse: lexical.Grams) -> Array:
        """What both heads predict before calibration, shape (2,)."""
        predicted: Array = self.intercept + dense @ self.dense + sparse.counts @ self.sparse[sparse.buckets]
        return predicted

    def familiarity(self, known: float, density: float) -> float:
        return float(min(_part(known, self.mix.known), _part(density, self.mix.density)))


def rank(value: float, knots: Array) -> float:
    """The share of the fitted rows whose routed value is below `value`, in [0, 1]."""
    return float(np.interp(value, knots, np.linspace(0.0, 1.0, len(knots))))


def routed(raw: npt.NDArray[np.floating[Any]], mix: Mix) -> npt.NDArray[np.float64]:
    """The value that is ranked; `raw` has the heads in its last axis."""
    weak, strong = raw[..., 0].astype(np.float64), raw[..., 1].astype(np.float64)
    value: npt.NDArray[np.float64] = strong - weak + mix.difficulty * (1.0 - weak)
    return value


def dump(heads: Heads) -> bytes:
    """An npz file without pickles; the same values give the same bytes."""
    meta = {
        "format": FORMAT,
        "kind": KIND_GAIN,
        "embedder": heads.embedder,
        "mix": asdict(heads.mix),
        "threshold": heads.threshold,
        "large_share": heads.large_share,
        "description": heads.description,
    }
    text = json.dumps(meta, sort_keys=True, ensure_ascii=True).encode()
    arrays = {name: getattr(heads, name) for name in _OF_HEADS}
    arrays |= {f"view_{name}": getattr(heads.view, name) for name in _OF_VIEW}
    if heads.evidence is not None:
        arrays |= {f"evidence_{name}": getattr(heads.evidence, name) for name in neighbours.NAMES}
        arrays["evidence_rows"] = heads.evidence.rows.astype(np.float16)
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.frombuffer(text, dtype=np.uint8), **arrays)
    return buffer.getvalue()


def load(data: bytes) -> Heads:
    """Read an artefact. Raises `CalibrationError` when it is broken or of another kind."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            if meta["format"] != FORMAT or meta["kind"] != KIND_GAIN:
                raise ValueError(f"format {meta['format']!r}, kind {meta['kind']!r}: calibrate again")
            view = View(**{name: np.asarray(file[f"view_{name}"], dtype=np.float32) for name in _OF_VIEW})
            arrays = {name: np.asarray(file[name], dtype=np.float32) for name in _OF_HEADS}
            heads = Heads(
                view,
                **arrays,
                mix=Mix(**meta["mix"]),
                threshold=float(meta["threshold"]),
                embedder=str(meta["embedder"]),
                description=dict(meta["description"]),
                large_share=float(meta["large_share"]),
                sha256=hashlib.sha256(data).hexdigest(),
                evidence=_evidence(file) if meta["embedder"] else None,
            )
    except Exception as error:  # whatever numpy, zipfile and json raise on bytes that are no artefact
        raise CalibrationError(f"not a calibration artefact with heads: {error}") from error
    _check(heads)
    return heads


def _evidence(file: Mapping[str, npt.NDArray[Any]]) -> Evidence:
    return Evidence(**{name: np.asarray(file[f"evidence_{name}"], dtype=np.float32) for name in neighbours.NAMES})


def _check(heads: Heads) -> None:
    """Refuse shapes that do not fit and numbers that would give no score."""
    view, fourier = heads.view, len(heads.view.phase)
    shapes = {
        "hand features": (view.mean.shape, (len(lexical.HAND_NAMES),)),
        "scales": (view.scale.shape, view.mean.shape),
        "projection": (view.omega.shape, (len(view.mean), fourier)),
        "document frequencies": (view.idf.shape, (lexical.BUCKETS,)),
        "dense weights": (heads.dense.shape, (fourier, 2)),
        "sparse weights": (heads.sparse.shape, (lexical.BUCKETS, 2)),
        "intercepts": (heads.intercept.shape, (2,)),
        "curves": (heads.weak_curve.shape[:1] + heads.strong_curve.shape[:1], (2, 2)),
    }
    wrong = [f"{name} of shape {found}, not {needed}" for name, (found, needed) in shapes.items() if found != needed]
    wrong += [problem] if heads.evidence is not None and (problem := heads.evidence.problem()) else []
    if wrong:
        raise CalibrationError(f"not a calibration artefact with heads: {wrong[0]}")
    if not _in_range(heads):
        raise CalibrationError("not a calibration artefact with heads: its numbers are out of range")


def _in_range(heads: Heads) -> bool:
    view = heads.view
    judges: list[Heads | Evidence] = [heads] if heads.evidence is None else [heads, heads.evidence]
    arrays = [getattr(view, name) for name in _OF_VIEW] + [getattr(heads, name) for name in _OF_HEADS]
    arrays += [] if heads.evidence is None else [getattr(heads.evidence, name) for name in neighbours.NAMES]
    rising = all(len(x) and (np.diff(x) >= 0).all() for by in judges for x in (by.knots, by.weak_curve[0], by.strong_curve[0]))
    finite = all(np.isfinite(array).all() for array in arrays)
    return bool(rising and finite and 0.0 <= heads.threshold <= 1.0 and (view.scale > 0).all())


def _part(value: float, enough: float) -> float:
    return 1.0 if value >= enough else max(value, 0.0) / enough
