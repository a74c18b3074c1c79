"""Expand the hand-written tables and templates of `corpus/` into question/answer pairs, in a fixed order."""

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
PAIRS = 240
"""Pairs of rows drawn for each template that joins two tables."""

Row = dict[str, str]
Turn = tuple[str, str]


def table(name: str) -> list[Row]:
    """The rows of `corpus/tables/<name>.txt`: named fields parted by `|`."""
    header, *lines = (CORPUS / "tables" / f"{name}.txt").read_text().splitlines()
    fields = header.split("|")
    return [dict(zip(fields, line.split("|"), strict=True)) for line in lines]


def forms(row: Row, suffix: str = "") -> Row:
    """Each field under its name and, with its first letter raised, under the capitalised name; `suffix` marks the second row."""
    lower = {key + suffix: value for key, value in row.items()}
    upper = {key.capitalize() + suffix: value[0].upper() + value[1:] for key, value in row.items()}
    return lower | upper


def rows(spec: str, rng: random.Random) -> list[Row]:
    """`animals` gives each row of that table; `animals+things` gives `PAIRS` draws of two different rows."""
    first, _, second = spec.partition("+")
    if not second:
        return [forms(row) for row in table(first)]
    grid = [(one, two) for one, two in product(table(first), table(second)) if one != two]
    # A field of the second row goes by its plain name too, unless the first row has one of that name.
    return [forms(two) | forms(two, "2") | forms(one) for one, two in rng.sample(grid, PAIRS)]


def blocks() -> Iterator[tuple[str, list[str], list[str]]]:
    """Each template: the tables it draws from, its questions and its answers."""
    for block in (CORPUS / "templates.txt").read_text().strip().split("\n\n"):
        spec, *lines = block.splitlines()
        questions = [line[3:] for line in lines if line.startswith("Q: ")]
        answers = [line[3:] for line in lines if line.startswith("A: ")]
        yield spec.strip("[]"), questions, answers


def expand(rng: random.Random) -> list[list[Turn]]:
    """For each template and row, the turns that it allows."""
    groups: list[list[Turn]] = []
    for spec, questions, answers in blocks():
        for row in rows(spec, rng):
            asked = rng.sample(questions, min(len(questions), 3 if "+" not in spec else 1))
            groups.append([(q.format(**row), rng.choice(answers).format(**row)) for q in asked])
    return groups


def sums(rng: random.Random, count: int = 300) -> list[Turn]:
    """Small sums and differences, as `count` turns."""
    turns = []
    for _ in range(count):
        a, b = sorted((rng.randrange(21), rng.randrange(21)), reverse=True)
        sign, result = rng.choice([("plus", a + b), ("minus", a - b)])
        turns.append((f"What is {a} {sign} {b}?", f"{a} {sign} {b} is {result}."))
    return turns
