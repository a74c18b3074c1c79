"""The learned score: from a text to p(small right), p(large right) and where their difference stands. Pure numpy.

Three views of the text: hand features through random Fourier features (a smooth non-linear model whose parameters hold no
row that it was fitted on), hashed words, hashed byte runs; a fourth, the embedding, where an artefact was fitted with it.
Both heads are linear in them, so that the gain is linear too.

What is routed on is the gain, or a mixture with difficulty where the fit found that better; both shrink to the base rate
of the fitted rows as a text becomes unlike all of them. `score` is the share of the fitted rows below it: a threshold of
1 - s sends a share s of such traffic to the large tier. It is a rank, not a probability; the calibrated probabilities
stand beside it.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.errors import CalibrationError
from serve_app.routing import lexical

Array = npt.NDArray[np.float32]
FORMAT = 1
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

    `mean`, `scale`: (hand,). `omega`: (hand + dim, fourier), `phase`: (fourier,) where dim is 0 without an embedding.
    `idf`: (BUCKETS,). `centre`: the mean Fourier features of the fitted texts.
    """

    mean: Array
    scale: Array
    omega: Array
    phase: Array
    idf: Array
    centre: Array

    @property
    def hand_size(self) -> int:
        """Fourier features of the hand features; those of the embedding follow them."""
        return len(self.centre)

    @property
    def dim(self) -> int:
        return len(self.omega) - len(self.mean)

    def dense(self, hand: Array, embedding: Array | None = None) -> Array:
        """Fourier features of a row, or of rows, of hand features (and embeddings)."""
        standard = np.clip((hand - self.mean) / self.scale, -CLIP, CLIP)
        size, width = self.hand_size, len(self.mean)
        parts = [self._waves(standard @ self.omega[:width, :size], slice(0, size))]
        if self.dim:
            if embedding is None or embedding.shape[-1] != self.dim:
                raise CalibrationError(f"this calibration needs an embedding of {self.dim} numbers")
            parts.append(self._waves(embedding @ self.omega[width:, size:], slice(size, None)))
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def _waves(self, projected: Array, part: slice) -> Array:
        phase = self.phase[part]
        waves: Array = np.float32(np.sqrt(2.0 / len(phase))) * np.cos(projected + phase)
        return waves

    def sparse(self, grams: lexical.Grams) -> lexical.Grams:
        return lexical.weighted(grams, self.idf)

    def known(self, grams: lexical.Grams) -> float:
        """The share of the text's words and pairs that were seen in fitting; 0 for a text without words."""
        words = grams.buckets[grams.buckets < 1 << lexical.WORD_BITS]
        return float((self.idf[words] > 0).mean()) if len(words) else 0.0

    def density(self, dense: Array) -> float:
        """How much of the kernel lies at the text: highest amid the fitted rows, about 0 far from all of them."""
        return float(dense[: self.hand_size] @ self.centre)


@dataclass(frozen=True)
class Heads:
    """A fitted artefact. Column 0 of `dense`, `sparse` and `intercept` predicts the small tier's score, column 1 the large one's.

    `knots`: routed values at equal steps of the fitted rows' share. `weak_curve`, `strong_curve`: (2, n), raw prediction and
    calibrated probability, rising. `large_share` is what `threshold` should send to the large tier; `sha256` names the file it was
    read from. `embedder` is empty where none is needed.
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

    @property
    def kind(self) -> str:
        return KIND_GAIN

    def judge(self, text: str, embedding: Array | None = None) -> Judged:
        """Score one text. Raises `CalibrationError` when the artefact needs an embedding and gets none."""
        grams = lexical.grams(text)
        dense = self.view.dense(lexical.hand(text), embedding)
        raw = self.raw(dense, self.view.sparse(grams))
        familiar = self.familiarity(self.view.known(grams), self.view.density(dense))
        raw = self.intercept + np.float32(familiar) * (raw - self.intercept)
        weak, strong = (float(np.interp(value, *curve)) for value, curve in zip(raw, (self.weak_curve, self.strong_curve), strict=True))
        return Judged(self.rank(float(routed(raw, self.mix))), weak, strong, 1.0 - familiar)

    def raw(self, dense: Array, sparse: lexical.Grams) -> Array:
        """What both heads predict before calibration, shape (2,)."""
        predicted: Array = self.intercept + dense @ self.dense + sparse.counts @ self.sparse[sparse.buckets]
        return predicted

    def familiarity(self, known: float, density: float) -> float:
        return float(min(_part(known, self.mix.known), _part(density, self.mix.density)))

    def rank(self, value: float) -> float:
        """The share of the fitted rows whose routed value is below `value`, in [0, 1]."""
        return float(np.interp(value, self.knots, np.linspace(0.0, 1.0, len(self.knots))))


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
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.frombuffer(text, dtype=np.uint8), **arrays)
    return buffer.getvalue()


def load(data: bytes) -> Heads:
    """Read an artefact. Raises `CalibrationError` when it is broken or of another kind."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
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
            )
            if meta["format"] != FORMAT or meta["kind"] != KIND_GAIN:
                raise ValueError(f"format {meta['format']!r}, kind {meta['kind']!r}")
    except Exception as error:  # whatever numpy, zipfile and json raise on bytes that are no artefact
        raise CalibrationError(f"not a calibration artefact with heads: {error}") from error
    _check(heads)
    return heads


def _check(heads: Heads) -> None:
    """Refuse shapes that do not fit and numbers that would give no score."""
    view, fourier = heads.view, len(heads.view.phase)
    shapes = {
        "hand features": (view.mean.shape, (len(lexical.HAND_NAMES),)),
        "scales": (view.scale.shape, view.mean.shape),
        "projection": (view.omega.shape[1:], (fourier,)),
        "document frequencies": (view.idf.shape, (lexical.BUCKETS,)),
        "dense weights": (heads.dense.shape, (fourier, 2)),
        "sparse weights": (heads.sparse.shape, (lexical.BUCKETS, 2)),
        "intercepts": (heads.intercept.shape, (2,)),
        "curves": (heads.weak_curve.shape[:1] + heads.strong_curve.shape[:1], (2, 2)),
    }
    for name, (found, needed) in shapes.items():
        if found != needed:
            raise CalibrationError(f"not a calibration artefact with heads: {name} of shape {found}, not {needed}")
    arrays = [getattr(view, name) for name in _OF_VIEW] + [getattr(heads, name) for name in _OF_HEADS]
    rising = all(len(x) and (np.diff(x) >= 0).all() for x in (heads.knots, heads.weak_curve[0], heads.strong_curve[0]))
    if not rising or not all(np.isfinite(array).all() for array in arrays) or not 0.0 <= heads.threshold <= 1.0 or (view.scale <= 0).any():
        raise CalibrationError("not a calibration artefact with heads: its numbers are out of range")


def _part(value: float, enough: float) -> float:
    return 1.0 if value >= enough else max(value, 0.0) / enough
