"""How long answers are: quantiles fitted to published answers, bent to a wanted mean. Distributions ship here, never rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.domain import Tier

Floats = npt.NDArray[np.float64]
LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)
PACKAGED = "answer_lengths.json"


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution by its quantiles at `levels`, linear between them in the logarithm. Values are tokens, 1 at least."""

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, ranks: Floats) -> Floats:
        """The values at these ranks, each in [0, 1]."""
        found: Floats = np.exp(np.interp(ranks, self.levels, np.log(self.values)))
        return found

    def bent(self, mean: float, most: int) -> "Quantiles":
        """The same shape, scaled so that its mean is `mean` once everything above `most` is cut off there.

        Raises `ValueError` where no scale does it: `mean` must be below `most`.
        """
        if not 1 <= mean < most:
            raise ValueError(f"a mean of {mean:g} tokens needs a longest answer above it, not {most}")
        low, high = 1e-6, 1e6
        for _ in range(80):
            scale = (low * high) ** 0.5
            low, high = (scale, high) if self._scaled(scale, most).mean() < mean else (low, scale)
        return self._scaled(high, most)

    def mean(self) -> float:
        return float(self.at(np.linspace(0.0005, 0.9995, 1000)).mean())

    def _scaled(self, scale: float, most: int) -> "Quantiles":
        return Quantiles(self.levels, tuple(min(max(value * scale, 1.0), float(most)) for value in self.values))


def fit(values: Sequence[float], levels: Sequence[float] = LEVELS) -> Quantiles:
    """The quantiles of a sample of token counts."""
    found = np.maximum(np.quantile(np.asarray(values, dtype=np.float64), levels), 1.0)
    return Quantiles(tuple(levels), tuple(float(round(value, 1)) for value in found))


def distance(sample: Sequence[float], quantiles: Quantiles) -> float:
    """The largest gap between the sample's distribution and the fitted one (Kolmogorov and Smirnov's statistic)."""
    ordered = np.sort(np.asarray(sample, dtype=np.float64))
    expected = np.interp(np.log(np.maximum(ordered, 1e-9)), np.log(_rising(quantiles.values)), quantiles.levels)
    upper = np.searchsorted(ordered, ordered, "right") / len(ordered)
    lower = np.searchsorted(ordered, ordered, "left") / len(ordered)
    return float(np.maximum(np.abs(upper - expected), np.abs(expected - lower)).max())


def packaged() -> dict[Tier, Quantiles]:
    data: dict[str, Any] = json.loads(files("serve_app.planning.data").joinpath(PACKAGED).read_text(encoding="utf-8"))
    return {tier: Quantiles(tuple(data["levels"]), tuple(data[tier.value]["tokens"])) for tier in Tier}


def _rising(values: Sequence[float]) -> Floats:
    """Equal quantiles made to rise by a hair: a jump of the distribution stays a jump."""
    return np.asarray(values, dtype=np.float64) * (1 + 1e-9 * np.arange(len(values)))
