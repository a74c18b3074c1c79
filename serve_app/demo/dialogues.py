"""The chat models' corpus as ChatML dialogues, part of it held out."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.demo.grammar import CORPUS, Turn, expand, sums

HELD_OUT_GRAMMAR, HELD_OUT_WRITTEN = 0.05, 0.1
REPEAT_WRITTEN = 4
"""How often a hand-written dialogue, worded in another way each time, stands in the training part."""


@dataclass(frozen=True)
class Dialogue:
    """A conversation: an optional system message and one or two question/answer turns."""

    turns: tuple[Turn, ...]
    system: str = ""


@dataclass(frozen=True)
class Corpus:
    """Training dialogues and two held-out sets: of the grammar's and of the hand-written ones."""

    train: list[Dialogue]
    held_grammar: list[Dialogue]
    held_written: list[Dialogue]


def written() -> list[Dialogue]:
    """The hand-written dialogues of `corpus/dialogues/`: blocks of `Q:` and `A:` lines."""
    found = []
    for file in sorted((CORPUS / "dialogues").glob("*.txt")):
        for block in file.read_text().strip().split("\n\n"):
            lines = [line[3:] for line in block.splitlines()]
            found.append(Dialogue(tuple(zip(lines[::2], lines[1::2], strict=True))))
    return found


def generated(rng: random.Random) -> list[Dialogue]:
    """The grammar's dialogues; about one in eight has a second turn on the same subject."""
    found = []
    for turns in [*expand(rng), *([turn] for turn in sums(rng))]:
        start = 0
        while start < len(turns):
            size = 2 if rng.random() < 0.15 else 1
            found.append(Dialogue(tuple(turns[start : start + size])))
            start += size
    return found


def vary(dialogue: Dialogue, rng: random.Random) -> Dialogue:
    """The same dialogue as another person would type it: opener, lower case, no final mark, with or without a system message."""
    lines = {name: (CORPUS / f"{name}.txt").read_text().splitlines() for name in ("openers", "systems")}
    turns = tuple((reword(question, rng, lines["openers"]), answer) for question, answer in dialogue.turns)
    return Dialogue(turns, rng.choice(lines["systems"]) if rng.random() < 0.25 else "")


def reword(question: str, rng: random.Random, openers: Sequence[str]) -> str:
    """One question with chance changes to its opening, casing and final mark."""
    if rng.random() < 0.15:
        question = f"{rng.choice(openers).strip()} {question}"
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip("?.!")
    return question


def split(dialogues: list[Dialogue], share: float, rng: random.Random) -> tuple[list[Dialogue], list[Dialogue]]:
    """(training part, held-out part of that share), drawn at random."""
    shuffled = rng.sample(dialogues, len(dialogues))
    cut = round(len(shuffled) * share)
    return shuffled[cut:], shuffled[:cut]


def load(seed: int = 0) -> Corpus:
    """The whole corpus; the same seed gives the same dialogues in the same order."""
    rng = random.Random(seed)
    by_hand, held_written = split(written(), HELD_OUT_WRITTEN, rng)
    by_rule, held_grammar = split(generated(rng), HELD_OUT_GRAMMAR, rng)
    train = [vary(dialogue, rng) for dialogue in by_rule + by_hand * REPEAT_WRITTEN]
    rng.shuffle(train)
    return Corpus(train, held_grammar, held_written)
