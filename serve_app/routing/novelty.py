"""How unlike the fitted texts a text is, for artefacts whose heads do not tell it themselves. Pure numpy, about a millisecond.

Three ways to be new, of which the greatest counts: the shape, how far the hand features are from the fitted texts' middle in
their own spread; and how rare the words and the byte runs are among the fitted texts. 0 is a text no more unusual than 99 of
100 held-out ones in each, 1 one as far beyond that bound as the bound is from the median.

The embedding is not asked: MiniLM puts gibberish, base64 and DNA amid ordinary questions (docs/calibration.md has the figures).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.errors import CalibrationError
from serve_app.routing import lexical

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
UNUSUAL = 1.0  # percent of held-out texts beyond each bound
FOLDS = 5
MIN_ROWS = 100
WAYS = 3  # shape, words, byte runs
STEPS = 24.0  # of rarity in one unit of logarithm: 10 units fit a byte
FLAT = 1e-6  # a spread below it is none: that feature counts in units of 1
SPLIT = 1 << lexical.WORD_BITS


@dataclass(frozen=True)
class Familiar:
    """What the fitted texts are like. `mean`, `scale`: of the hand features, (hand,). `rarity`: of each bucket, (BUCKETS,).

    `middle`, `bound`: (WAYS,), the median of held-out texts in each way to be new, and what 99 of 100 of them keep.
    """

    mean: Array
    scale: Array
    rarity: Bytes
    middle: Array
    bound: Array

    def novelty(self, text: str) -> float:
        """In [0, 1]; 0 without any text, of which nothing can be said."""
        if not text.strip():
            return 0.0
        beyond = (self.unusual(lexical.hand(text), lexical.grams(text)) - self.bound) / (self.bound - self.middle)
        return float(np.clip(beyond.max(), 0.0, 1.0))

    def unusual(self, hand: Array, grams: lexical.Grams) -> Array:
        """How unusual a text is in each way, shape (WAYS,). Without words, or runs, that way says nothing."""
        words = grams.buckets < SPLIT
        rare = [_mean(self.rarity[grams.buckets[part]] / STEPS) for part in (words, ~words)]
        return np.asarray([np.linalg.norm((hand - self.mean) / self.scale), *rare], dtype=np.float32)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What an artefact's file holds of it, by the names that `read` looks for."""
        return {f"familiar_{name}": getattr(self, name) for name in _NAMES}


_NAMES = ("mean", "scale", "rarity", "middle", "bound")


def fit(texts: Sequence[str], *, seed: int) -> Familiar | None:
    """None where there are too few texts to say what is unlike them. The same texts and seed give the same bytes.

    The bounds are those of texts that were held out: to itself no text is new.
    """
    if len(texts) < MIN_ROWS:
        return None
    hand, grams = np.stack([lexical.hand(text) for text in texts]), [lexical.grams(text) for text in texts]
    fold = np.random.default_rng(seed).permutation(len(texts)) % FOLDS
    found = np.zeros((len(texts), WAYS), dtype=np.float32)
    for each in range(FOLDS):
        rest = _of(hand[fold != each], [grams[row] for row in np.flatnonzero(fold != each)])
        for row in np.flatnonzero(fold == each):
            found[row] = rest.unusual(hand[row], grams[row])
    whole = _of(hand, grams)
    middle, bound = np.percentile(found, [50.0, 100.0 - UNUSUAL], axis=0).astype(np.float32)
    return Familiar(whole.mean, whole.scale, whole.rarity, middle, np.maximum(bound, middle + np.float32(FLAT)))


def read(arrays: Mapping[str, Any]) -> Familiar | None:
    """From an artefact's file; None where it holds none. Raises `CalibrationError` for numbers that mean nothing."""
    if "familiar_bound" not in arrays:
        return None
    mean, scale, middle, bound = (np.asarray(arrays[f"familiar_{name}"], dtype=np.float32) for name in ("mean", "scale", "middle", "bound"))
    rarity = np.asarray(arrays["familiar_rarity"], dtype=np.uint8)
    shapes, hand = (mean.shape, scale.shape, rarity.shape, middle.shape, bound.shape), (len(lexical.HAND_NAMES),)
    if shapes != (hand, hand, (lexical.BUCKETS,), (WAYS,), (WAYS,)):
        raise CalibrationError(f"not a calibration artefact: what is familiar has the shapes {shapes}")
    finite = all(np.isfinite(array).all() for array in (mean, scale, middle, bound))
    if not finite or (scale <= 0).any() or (bound <= middle).any():
        raise CalibrationError("not a calibration artefact: what is familiar is out of range")
    return Familiar(mean, scale, rarity, middle, bound)


def _of(hand: Array, grams: Sequence[lexical.Grams]) -> Familiar:
    """Without bounds. Rarity is minus the logarithm of the share of texts with that bucket, half a text added."""
    texts = np.zeros(lexical.BUCKETS)
    for one in grams:
        texts[one.buckets] += 1.0
    rarity = np.clip(np.round(-np.log((texts + 0.5) / (len(grams) + 1.0)) * STEPS), 0, 255).astype(np.uint8)
    spread = hand.std(axis=0)
    none = np.zeros(WAYS, dtype=np.float32)
    return Familiar(hand.mean(axis=0), np.where(spread < FLAT, np.float32(1.0), spread).astype(np.float32), rarity, none, none)


def _mean(values: npt.NDArray[np.floating[Any]]) -> float:
    return float(values.mean()) if len(values) else 0.0
