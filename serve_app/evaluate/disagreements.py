"""Where the two models' answers to one prompt differ most: from the ledger's mirrors, where prompts are stored."""

import heapq
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from serve_app.domain import Tier
from serve_app.observe import reader
from serve_app.observe.tables import mirrors
from serve_app.routing import features

SHOWN = 700  # characters of each text
PAIRS_AT_ONCE = 100  # a prompt may have 256 KiB
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """`alike`: the share of all words of both answers that both have."""

    decision_id: str
    alike: float
    prompt: str
    small: str
    large: str


@dataclass(frozen=True, slots=True)
class Disagreements:
    pairs: int
    alike: float | None
    worst: tuple[Disagreement, ...]


def find(url: str, since: float | None, until: float | None, most: int = 10) -> Disagreements:
    """The `most` pairs with the least in common. Raises `TierwiseError` when the ledger cannot be read."""
    bounds = ((mirrors.c.created.__ge__, since), (mirrors.c.created.__lt__, until))
    wanted = sa.select(mirrors).where(*(compare(moment) for compare, moment in bounds if moment is not None)).order_by(mirrors.c.number)
    seen: list[float] = []

    def pairs(connection: sa.Connection) -> Iterator[Disagreement]:
        for batch in reader.rows(connection, wanted, PAIRS_AT_ONCE):
            for row in batch:
                found = _pair(row)
                seen.append(found.alike)
                yield found

    with reader.reading(url) as connection:
        worst = heapq.nsmallest(most, pairs(connection), key=lambda pair: (pair.alike, pair.decision_id))
    return Disagreements(len(seen), sum(seen) / len(seen) if seen else None, tuple(worst))


def _pair(row: Mapping[Any, Any]) -> Disagreement:
    answers = {row["tier"]: row["answer"], row["mirror_tier"]: row["mirror_answer"]}
    small, large = answers.get(Tier.SMALL, ""), answers.get(Tier.LARGE, "")
    prompt = features.scored_text(json.loads(row["body"]))
    return Disagreement(row["decision_id"], alike(small, large), _short(prompt), _short(small), _short(large))


def alike(one: str, other: str) -> float:
    words = [set(WORD.findall(text.lower())) for text in (one, other)]
    either = words[0] | words[1]
    return len(words[0] & words[1]) / len(either) if either else float(one == other)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."
