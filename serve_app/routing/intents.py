"""Which kinds of task a text speaks of, by words of thirteen languages (`intents.txt`). Pure but for reading that file once.

The embedder was trained on English. These words carry requests in other languages, and tell "prove" from "translate" where a
sentence is too short to be near to any other.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FILE = "intents.txt"
NEAR = 40  # characters from the start that are its beginning
LAST = 80  # and those that are its end
MOST = 6  # occurrences that are counted
WHOLE_WORD, WHOLE_OPENING = 3, 5  # letters up to which a stem is a whole word
_ASIAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_IS_ASIAN = re.compile(f"[{_ASIAN}]")
_BEGIN = re.compile(rf"[{_ASIAN}]|(?<!\w)[^\W{_ASIAN}]+")
_LETTERS = str.maketrans({"ł": "l", "ø": "o", "ı": "i", "ß": "ss", "æ": "ae", "œ": "oe", "’": "'"})
_SENTENCE = re.compile(r"[.!?。！？]+[\"”»]?(?:\s|$)|(?<=[。！？])|\n+")
PLACES = ("count", "near", "last")
SENTENCES = ("first", "last", "any")


@dataclass(frozen=True, slots=True)
class Stems:
    """`groups` of each stem, by its number; `lengths` of all stems, ascending; a stem up to `whole` letters is a whole word."""

    names: tuple[str, ...]
    groups: dict[str, tuple[int, ...]]
    lengths: tuple[int, ...]
    whole: int

    def at(self, text: str, start: int) -> Iterator[int]:
        """The groups with a stem that begins at `start`, each once for every such stem."""
        for length in self.lengths:
            stem = text[start : start + length]
            if stem in self.groups and (length > self.whole or self._ends(text, start + length)):
                yield from self.groups[stem]

    @staticmethod
    def _ends(text: str, end: int) -> bool:
        """Whether a word ends here; Chinese and Japanese have no spaces to tell."""
        return end >= len(text) or not text[end].isalnum() or _IS_ASIAN.match(text[end - 1]) is not None


def plain(text: str) -> str:
    """Lower case without accents, so that a client's spelling of either does not matter."""
    letters = unicodedata.normalize("NFD", text.lower()).translate(_LETTERS)
    return unicodedata.normalize("NFC", "".join(char for char in letters if not "\u0300" <= char <= "\u036f"))


def sentences(text: str) -> list[str]:
    """At least one, which may be empty."""
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()] or [""]


def opens(text: str) -> bool:
    """Whether the text begins as a request or a question does."""
    return next(_stems()[1].at(plain(text).lstrip(), 0), None) is not None


def names() -> tuple[str, ...]:
    """What the numbers of `found` stand for."""
    anywhere, openings = _stems()
    places = [f"{name}:{place}" for name in anywhere.names for place in PLACES]
    return (*places, *(f"^{name}:{place}" for name in openings.names for place in SENTENCES))


def found(text: str) -> list[float]:
    """For each group how often it occurs, and whether at either end; for each opening which sentences begin with it."""
    simple = plain(text)
    anywhere, openings = _stems()
    starts: list[list[int]] = [[] for _ in anywhere.names]
    for word in _BEGIN.finditer(simple):
        for group in set(anywhere.at(simple, word.start())):
            starts[group].append(word.start())
    return [*(value for few in starts for value in _places(few, len(simple))), *_begin(openings, sentences(simple))]


def _places(starts: list[int], length: int) -> tuple[float, float, float]:
    if not starts:
        return 0.0, 0.0, 0.0
    return float(min(len(starts), MOST)), float(starts[0] < NEAR), float(starts[-1] >= length - LAST)


def _begin(openings: Stems, parts: list[str]) -> Iterator[float]:
    begins = [set(openings.at(part, 0)) for part in parts]
    for group in range(len(openings.names)):
        yield float(group in begins[0])
        yield float(len(begins) > 1 and group in begins[-1])
        yield float(any(group in one for one in begins))


@cache
def _stems() -> tuple[Stems, Stems]:
    """(anywhere, at the beginning of a sentence), as the file has them."""
    text = files("serve_app.routing").joinpath(FILE).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    anywhere = _read((line for line in lines if not line.startswith("^")), WHOLE_WORD)
    return anywhere, _read((line[1:] for line in lines if line.startswith("^")), WHOLE_OPENING)


def _read(lines: Iterable[str], whole: int) -> Stems:
    names: list[str] = []
    groups: dict[str, tuple[int, ...]] = {}
    for line in lines:
        name, _, rest = line.partition(": ")
        for stem in dict.fromkeys(plain(one.strip()) for one in rest.split(", ")):
            groups[stem] = (*groups.get(stem, ()), len(names))
        names.append(name)
    return Stems(tuple(names), groups, tuple(sorted({len(stem) for stem in groups})), whole)
