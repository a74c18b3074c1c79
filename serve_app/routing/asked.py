"""One request as the label heads read it: the instruction, hand features of it, and its hashed n-grams. Pure, about a millisecond."""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from serve_app.routing import intents, lexical
from serve_app.routing.instruction import PASTED, alternatives, instruction

Vector = npt.NDArray[np.float32]
SHORTEST, SHORT = 40, 80  # characters
_NUMBER = re.compile(r"\d+")
_ASIAN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_QUOTE = re.compile('["“«„「]')
FORM = (
    *("chars", "pasted", "quoted", "colon", "lines", "numbers", "asks", "questions", "sentences", "shortest", "short"),
    *("asian", "cyrillic", "first_words", "last_words", "early_colon"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """`view` is what is embedded, `hand` holds the numbers of `blocks`, `grams` the n-grams of the view."""

    view: str
    hand: Vector
    grams: lexical.Grams


@cache
def blocks() -> dict[str, int]:
    """The parts of `hand`, in order, and how many numbers each has."""
    return {"form": len(FORM), "intents": len(intents.names()), "lexical": len(lexical.HAND_NAMES)}


def read(text: str) -> Asked:
    """Casing is not read: it says nothing that typing on a phone does not undo."""
    return _of(instruction(lexical.scanned(text)))


def readings(text: str) -> list[Asked]:
    """All ways to read the text, nearly always one: the hardest counts, so that what is pasted around a request hides nothing."""
    scanned = lexical.scanned(text)
    return [_of(view) for view in dict.fromkeys((instruction(scanned), *alternatives(scanned)))]


def _of(view: str) -> Asked:
    view = view.lower()
    hand = np.concatenate((_form(view), np.log1p(intents.found(view)), lexical.hand(view))).astype(np.float32)
    return Asked(view, hand, lexical.grams(view))


def _form(view: str) -> list[float]:
    parts = intents.sentences(view)
    return [
        float(np.log1p(len(view))),
        float(PASTED in view),
        float(_QUOTE.search(view) is not None),
        float(":" in view or "：" in view),
        float(np.log1p(view.count("\n"))),
        float(np.log1p(len(_NUMBER.findall(view)))),
        float("?" in view or "？" in view),
        float(np.log1p(view.count("?") + view.count("？"))),
        float(np.log1p(len(parts))),
        float(len(view) < SHORTEST),
        float(len(view) < SHORT),
        float(_ASIAN.search(view) is not None),
        float(_CYRILLIC.search(view) is not None),
        float(np.log1p(parts[0].count(" "))),
        float(np.log1p(parts[-1].count(" "))),
        float(":" in view[:SHORT]),
    ]
