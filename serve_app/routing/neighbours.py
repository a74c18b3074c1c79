"""What the embedding of a text adds to the learned score: a smooth model of it, and the fitted rows that are nearest. Pure numpy.

Both predict by how much the two scores differ from their means, and are added to what the text alone says. The rows are the
user's own embeddings, exact and bounded: such an artefact is as private as the prompts it was fitted on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.errors import CalibrationError

Array = npt.NDArray[np.float32]
HEAD_CHARS, TAIL_CHARS = 260, 140
NEAREST = 100
MAX_ROWS = 30_000  # of an artefact; more are drawn from
WIDTH = 4.0  # of the smooth model: a row counts exp(WIDTH * (cosine - 1))
SHARPNESS = 8.0  # a row counts exp(SHARPNESS * (cosine - the nearest one's cosine))
SHRINK = 10.0  # rows' worth of base rate among the nearest
GRID = np.linspace(0.05, 0.95, 19)  # thresholds at which a margin was fitted
NAMES = ("rows", "above", "pull", "parts", "knots", "weak_curve", "strong_curve", "margins")


def excerpt(text: str) -> str:
    """What is embedded: both ends of a text. An embedder's time grows with length, and more of it was no better."""
    return text if len(text) <= HEAD_CHARS + TAIL_CHARS else text[:HEAD_CHARS] + "\n" + text[-TAIL_CHARS:]


@dataclass(frozen=True)
class Evidence:
    """`rows` (n, dim): fitted embeddings, exact in float16. `above` (n, 2): their scores above the means. `pull` (n, 2): what each
    row counts in the smooth model. `parts`: what the text, the smooth model and the nearest rows count in the sum.

    `knots` and the curves are those of the sum, as in `Heads`. `margins` (GRID,): how far from a threshold the score of the text
    alone must be to decide without an embedding.
    """

    rows: Array
    above: Array
    pull: Array
    parts: Array
    knots: Array
    weak_curve: Array
    strong_curve: Array
    margins: Array

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])

    def add(self, alone: Array, embeddings: Array) -> Array:
        """`alone`: what the text says above the intercept. One row or many; shape as `alone`. Raises `CalibrationError`."""
        if embeddings.shape[-1] != self.dim:
            raise CalibrationError(f"this calibration needs an embedding of {self.dim} numbers")
        cosines = embeddings @ self.rows.T
        smooth, nearest = kernel(cosines) @ self.pull, near(cosines, self.above)
        whole: Array = self.parts[0] * alone + self.parts[1] * smooth + self.parts[2] * nearest
        return whole

    def margin(self, threshold: float) -> float:
        return float(np.interp(threshold, GRID, self.margins))

    def problem(self) -> str | None:
        """Which shape does not fit, or None."""
        shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
            "embedded rows": (self.rows.shape[1:], self.rows.shape[1:2]),
            "scores of embedded rows": (self.above.shape, (len(self.rows), 2)),
            "pull of embedded rows": (self.pull.shape, (len(self.rows), 2)),
            "parts": (self.parts.shape, (3,)),
            "margins": (self.margins.shape, GRID.shape),
            "embedded curves": (self.weak_curve.shape[:1] + self.strong_curve.shape[:1], (2, 2)),
        }
        wrong = [f"{name} of shape {found}, not {needed}" for name, (found, needed) in shapes.items() if found != needed]
        return wrong[0] if wrong else None


def kernel(cosines: Array) -> Array:
    """A Gaussian of the distance between vectors of length one."""
    found: Array = np.exp(np.float32(WIDTH) * (cosines - np.float32(1.0)))
    return found


def near(cosines: Array, above: Array) -> Array:
    """The mean of `above` over the nearest rows, weighed by nearness and shrunk to 0. `cosines`: (..., n)."""
    count = min(NEAREST, cosines.shape[-1])
    index = np.argpartition(-cosines, count - 1, axis=-1)[..., :count]
    cosine = np.take_along_axis(cosines, index, axis=-1)
    weight = np.exp(np.float32(SHARPNESS) * (cosine - cosine.max(axis=-1, keepdims=True)))
    mean: Array = (weight[..., None] * above[index]).sum(axis=-2) / (weight.sum(axis=-1, keepdims=True) + np.float32(SHRINK))
    return mean
