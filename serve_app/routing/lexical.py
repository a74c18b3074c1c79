"""Text to numbers without a model: hand features and hashed n-grams. Pure; well under a millisecond for a usual prompt.

The hash is our own, so that an artefact means the same on every machine and Python. Numbers are hashed by their length
only: which year it is says nothing about difficulty. Long text is read at both ends, where instructions stand.
"""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Buckets = npt.NDArray[np.int64]

SCAN_CHARS = 6_000
WORD_BITS, CHAR_BITS = 15, 15
BUCKETS = (1 << WORD_BITS) + (1 << CHAR_BITS)
CHAR_LENGTHS = (3, 4, 5)
MANY = 4_000  # n-grams; counting into all buckets is faster from here on
_MIX = np.uint64(0x9E3779B97F4A7C15)
_PAIR = np.uint64(0xD6E8FEB86659FD93)
_BASE = np.uint64(1_000_003)

_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_+")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)|\n+")
_OPTION = re.compile(r"(?m)^[ \t]*(?:\(?[A-Ja-j][.)]|[-*] |\d{1,2}[.)])[ \t]*(.*)$")
_NAMES = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
_WH = frozenset(("what", "which", "who", "when", "where", "why", "how"))
_VOCABULARY: dict[str, str] = {
    "wh_anywhere": "what which who when where why how whom whose",
    "negation": "not no never none neither nor cannot except least without false incorrect don doesn isn",
    "condition": "if suppose assume given unless whether when",
    "cause": "because therefore since thus hence explain why reason cause causes caused due",
    "compare": "more less fewer greater smaller most least than compare difference better best same equal",
    "ratio": "half twice double triple thrice third quarter times percent per each every ratio average rate percentage",
    "sum": "total altogether remaining left rest sum combined together both all",
    "money": "cost costs price pay paid pays sell sold sells buy bought buys earn earns spend spent profit dollars dollar cents",
    "time": "hour hours minute minutes second seconds day days week weeks month months year years today before after later ago",
    "unit": "km kg cm mm m g mol ml atm kpa ft lb mile miles meter meters metre metres feet inch inches degrees volts joules pounds",
    "calculate": "calculate compute determine find solve evaluate estimate derive prove",
    "write": "write create generate compose implement design draft complete",
    "language": "summarize summarise translate rewrite list name define describe classify extract",
    "code": "def return function class import assert python int str self list array string print",
    "maths": "x y z n integer integers polynomial equation matrix theorem prime probability function vector graph group field root",
    "logic": "true false valid invalid statement argument premise conclusion implies exactly only either always must",
    "law": "court plaintiff defendant contract statute liable constitution negligence tort jury sued law legal police buyer seller",
    "medicine": "patient disease symptom symptoms blood treatment syndrome clinical infection cell cells protein gene drug physician",
    "science": "energy force mass velocity temperature pressure electron electrons atom atoms reaction acid solution species planet water",
    "economy": "market firm demand supply tax inflation interest income economy consumer bank capital money business company",
    "mind": "moral ethical ethics philosopher philosophy belief theory according argues psychology behavior behaviour social",
    "people": "he she his her they their him i my you your we our",
    "order": "first second third last next left right above below between leftmost rightmost oldest newest",
    "context": "passage text paragraph document article context table figure below following",
    "number_word": "one two three four five six seven eight nine ten dozen hundred thousand million",
    "article": "a an the this that these those",
    "modal": "would could should can may might will",
}
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("how_many", re.compile(r"\bhow (?:many|much|long|far|old)\b")),
    ("of_the_following", re.compile(r"of the following|the above")),
    ("blank", re.compile(r"__+|\b_\b|\.\.\.")),
    ("code_marks", re.compile(r"```|==|\w\(\w*\)|[{};]$", re.MULTILINE)),
    ("maths_marks", re.compile(r"\\[a-z]+|[=^√∑∫≤≥≠±×÷$%]")),
)
_MEMBERS: dict[str, tuple[int, ...]] = {
    word: tuple(i for i, words in enumerate(_VOCABULARY.values()) if word in words.split())
    for words in _VOCABULARY.values()
    for word in words.split()
}
_CAPITALS = frozenset(("NOT", "EXCEPT", "LEAST", "FALSE"))
_PLAIN = (
    "chars words lines sentences word_length long_words distinct_words upper digits punctuation non_ascii longest_sentence mean_sentence"
    " last_sentence first_sentence numbers distinct_numbers largest_number decimals number_digits options option_length option_spread"
    " option_numeric stem_chars question_marks ends_with_question names starts_wh starts_lower capital_not quotes brackets operators commas"
    " double_spaces"
)
HAND_NAMES: tuple[str, ...] = (*_PLAIN.split(), *_VOCABULARY, *(name for name, _ in _PATTERNS))


@dataclass(frozen=True, slots=True)
class Grams:
    """Hashed n-grams of one text: distinct `buckets`, ascending, and their `counts` damped to 1 + log(count)."""

    buckets: Buckets
    counts: Vector


def scanned(text: str) -> str:
    """The text, or both ends of it when it is long."""
    half = SCAN_CHARS // 2
    return text if len(text) <= SCAN_CHARS else text[:half] + "\n" + text[-half:]


def hand(text: str) -> Vector:
    """`HAND_NAMES` of the text; counts are logarithms, shares lie in [0, 1]. Shape (len(HAND_NAMES),), finite."""
    full, text = len(text), scanned(text)
    words = [token for token in _TOKEN.findall(text) if token[0].isalpha()]
    plain = [*_size(text, words, full), *_sentences(text), *_numbers(text), *_options(text), *_form(text, words)]
    values: Vector = np.concatenate((np.array(plain), np.log1p(_vocabulary(text.lower(), words)))).astype(np.float32)
    return values


def grams(text: str) -> Grams:
    """Words, pairs of neighbouring words, and runs of 3 to 5 bytes. Empty text has none."""
    text = scanned(text).lower()
    found = np.concatenate((_word_buckets(text), _char_buckets(text)))
    buckets, counts = _counted(found) if len(found) > MANY else np.unique(found, return_counts=True)
    return Grams(buckets, (1.0 + np.log(counts)).astype(np.float32))


def _counted(found: Buckets) -> tuple[Buckets, npt.NDArray[np.int64]]:
    """As `np.unique` with counts, without sorting: a quarter of the time for a long text."""
    counts = np.bincount(found, minlength=BUCKETS)
    buckets = np.flatnonzero(counts)
    return buckets, counts[buckets]


def weighted(one: Grams, idf: Vector) -> Grams:
    """The same n-grams by inverse document frequency, words and byte runs each scaled to length one."""
    values = one.counts * idf[one.buckets]
    edge = int(np.searchsorted(one.buckets, 1 << WORD_BITS))
    return Grams(one.buckets, np.concatenate((_unit(values[:edge]), _unit(values[edge:]))))


def idf_of(documents: Iterable[Grams]) -> Vector:
    """Inverse document frequencies, smoothed; zero for what fewer than two documents hold."""
    seen = np.zeros(BUCKETS, dtype=np.int64)
    total = 0
    for document in documents:
        seen[document.buckets] += 1
        total += 1
    return np.where(seen >= 2, np.log((1.0 + total) / (1.0 + seen)) + 1.0, 0.0).astype(np.float32)


def _unit(values: Vector) -> Vector:
    length = float(np.sqrt(values @ values))
    return values / np.float32(length) if length > 0 else values


def _word_buckets(text: str) -> Buckets:
    tokens = [f"#{min(len(token), 6)}" if token[0].isdigit() else token for token in _TOKEN.findall(text)]
    codes = np.array([zlib.crc32(token.encode("utf-8", "surrogatepass")) for token in tokens], dtype=np.uint64)
    pairs = codes[:-1] * _PAIR + codes[1:]
    return _bucket(np.concatenate((codes, pairs)), WORD_BITS)


def _char_buckets(text: str) -> Buckets:
    data = np.frombuffer(" ".join(text.split()).encode("utf-8", "surrogatepass"), dtype=np.uint8).astype(np.uint64)
    data = np.where((data >= 48) & (data <= 57), np.uint64(48), data)
    parts = []
    for length in CHAR_LENGTHS:
        if len(data) >= length:
            code = np.full(len(data) - length + 1, np.uint64(length))
            for offset in range(length):
                code = code * _BASE + data[offset : len(data) - length + 1 + offset]
            parts.append(code)
    return _bucket(np.concatenate(parts), CHAR_BITS) + (1 << WORD_BITS) if parts else np.zeros(0, dtype=np.int64)


def _bucket(codes: npt.NDArray[np.uint64], bits: int) -> Buckets:
    """The high bits of a multiplicative hash; products wrap around on purpose."""
    mixed = codes ^ (codes >> np.uint64(29))
    return ((mixed * _MIX) >> np.uint64(64 - bits)).astype(np.int64)


def _size(text: str, words: Sequence[str], full: int) -> list[float]:
    count = max(len(words), 1)
    return [
        float(np.log1p(full)),
        float(np.log1p(len(words))),
        float(np.log1p(text.count("\n"))),
        float(np.log1p(len(_SENTENCE.findall(text)))),
        sum(map(len, words)) / count,
        sum(len(word) > 8 for word in words) / count,
        len(set(map(str.lower, words))) / count,
        *_classes(text),
    ]


def _classes(text: str) -> list[float]:
    """Shares of upper case, digits, punctuation and what is not ASCII, by bytes of UTF-8."""
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    kinds = np.bincount(_KINDS[data], minlength=5) / max(len(data), 1)
    return [float(share) for share in kinds[1:]]


def _kind(byte: int) -> int:
    char = chr(byte)
    if byte >= 128:
        return 4
    return 1 if char.isupper() else 2 if char.isdigit() else 3 if not char.isalnum() and byte > 32 else 0


_KINDS = np.array([_kind(byte) for byte in range(256)], dtype=np.int64)


def _vocabulary(text: str, words: Sequence[str]) -> npt.NDArray[np.float64]:
    """How often each word group of `_VOCABULARY` and each pattern occurs; `text` is in lower case."""
    found = np.zeros(len(_VOCABULARY) + len(_PATTERNS))
    for word in words:
        for index in _MEMBERS.get(word.lower(), ()):
            found[index] += 1
    found[len(_VOCABULARY) :] = [len(pattern.findall(text)) for _, pattern in _PATTERNS]
    return found


def _sentences(text: str) -> list[float]:
    lengths = [len(part.split()) for part in _SENTENCE.split(text) if part.strip()] or [0]
    return [float(np.log1p(value)) for value in (max(lengths), sum(lengths) / len(lengths), lengths[-1], lengths[0])]


def _numbers(text: str) -> list[float]:
    found = _NUMBER.findall(text)
    values = [min(float(number.replace(",", "")), 1e12) for number in found]
    return [
        float(np.log1p(len(found))),
        float(np.log1p(len(set(values)))),
        float(np.log1p(max(values, default=0.0))),
        float(np.log1p(sum("." in number for number in found))),
        float(np.log1p(sum(map(len, found)))),
    ]


def _options(text: str) -> list[float]:
    """What the choices of a question look like, and how long it is without them."""
    options = [match.group(1) for match in _OPTION.finditer(text)]
    lengths = np.array([len(option) for option in options] or [0], dtype=np.float64)
    numeric = sum(any(map(str.isdigit, option)) for option in options)
    return [
        float(len(options)),
        float(np.log1p(lengths.mean())),
        float(np.log1p(lengths.std())),
        numeric / max(len(options), 1),
        float(np.log1p(max(len(text) - lengths.sum(), 0.0))),
    ]


def _form(text: str, words: Sequence[str]) -> list[float]:
    first = words[0] if words else ""
    return [
        float(np.log1p(text.count("?"))),
        float(text.rstrip().endswith("?")),
        float(np.log1p(len(_NAMES.findall(text)))),
        float(first.lower() in _WH),
        float(first[:1].islower()),
        float(any(word in _CAPITALS for word in words)),
        *(float(np.log1p(sum(map(text.count, marks)))) for marks in ('"“”', "()[]{}", "+-*/=<>", ",", "  ")),
    ]
