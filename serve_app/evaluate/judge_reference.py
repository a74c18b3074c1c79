"""Judges without a model of their own opinion: the same words as a reference, nearness to one, nearness to the large model's answer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.evaluate import sources
from serve_app.evaluate.judge import NoReference
from serve_app.evaluate.judge_pairs import Asked, Verdict
from serve_app.mirror import plain
from serve_app.ports import Embedding

Encode = Callable[[list[str]], Sequence[Embedding]]  # blocking; L2-normalised
NEEDED = 'lines {"decision_id" | "id" | "prompt", "reference": text or list of texts}'


@dataclass(frozen=True)
class References:
    """Right answers by decision, else by the prompt's own text, case and outer white space aside."""

    by_decision: dict[str, list[str]]
    by_prompt: dict[str, list[str]]

    def of(self, asked: Asked) -> list[str]:
        """Raises `NoReference`."""
        found = self.by_decision.get(asked.decision_id) or self.by_prompt.get(_same(asked.text))
        if not found:
            raise NoReference
        return found


def read(path: Path) -> References:
    """Raises `RequestError` for a file or a line that cannot be used."""
    by_decision: dict[str, list[str]] = {}
    by_prompt: dict[str, list[str]] = {}
    for number, row in enumerate((row for batch in sources.exported(path) for row in batch), start=1):
        texts = _texts(row)
        name = row.get("decision_id") or row.get("id")
        if not texts or not (isinstance(name, str) or isinstance(row.get("prompt"), str)):
            raise RequestError(f"{path}: row {number}: needs {NEEDED}")
        if isinstance(name, str):
            by_decision[name] = texts
        if isinstance(row.get("prompt"), str):
            by_prompt[_same(row["prompt"])] = texts
    return References(by_decision, by_prompt)


class Exact:
    """1 where an answer is a reference, case, white space and punctuation aside; else 0."""

    name = "exact"
    worth = "1 where the whole answer is the reference, case, spaces and punctuation aside: for short answers, where it says all there is"

    def __init__(self, references: References) -> None:
        self._references = references

    async def judge(self, asked: Asked, first: str, second: str) -> Verdict:
        right = {plain(text) for text in self._references.of(asked)}
        return Verdict(float(plain(first) in right), float(plain(second) in right))


class Similarity:
    """The cosine of each answer's embedding to the nearest reference's, 0 where it is negative."""

    name = "similarity"
    worth = (
        "cosine of embeddings to the reference, of the beginning of each text: nearness in topic and words, not truth; "
        "a wrong number is nearly as near as the right one"
    )

    def __init__(self, encode: Encode, references: References) -> None:
        self._encode = encode
        self._references = references

    async def judge(self, asked: Asked, first: str, second: str) -> Verdict:
        references = self._references.of(asked)
        vectors = np.stack(await asyncio.to_thread(self._encode, [first, second, *references]))
        near = np.clip((vectors[:2] @ vectors[2:].T).max(axis=1), 0.0, 1.0)
        return Verdict(round(float(near[0]), 6), round(float(near[1]), 6))


class Agreement:
    """The cosine of the two answers' embeddings for the small model, 1 for the large one, which is taken to be right."""

    name = "agreement"
    worth = (
        "cosine of embeddings to the large model's answer, which is taken to be right: it tells where the models differ in topic "
        "and words, never that the large one is wrong"
    )

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    async def judge(self, asked: Asked, first: str, second: str) -> Verdict:
        del asked
        small, large = await asyncio.to_thread(self._encode, [first, second])
        return Verdict(round(float(np.clip(small @ large, 0.0, 1.0)), 6), 1.0)


def _texts(row: Json) -> list[str]:
    given = row.get("reference")
    texts = given if isinstance(given, list) else [given]
    return [text for text in texts if isinstance(text, str) and text.strip()]


def _same(text: str) -> str:
    return text.strip().casefold()
