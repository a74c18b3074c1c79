"""Where the two models' answers to one prompt differ most: from the ledger's mirrors, where prompts are stored.

Most by their judged scores, where any pair is judged; else, and for want of anything better, by their words.
"""

import heapq
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from serve_app.domain import Json, Tier
from serve_app.observe import opinions, reader
from serve_app.observe.tables import mirrors
from serve_app.routing import features

SHOWN = 700  # characters of each text
PAIRS_AT_ONCE = 100  # a prompt may have 256 KiB
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """`alike`: the share of all words of both answers that both have. `weak`, `strong`: the judged scores, where there are any."""

    decision_id: str
    alike: float
    prompt: str
    small: str
    large: str
    weak: float | None = None
    strong: float | None = None

    @property
    def apart(self) -> float | None:
        """How far the judge puts them from each other."""
        return None if self.weak is None or self.strong is None else abs(self.strong - self.weak)


@dataclass(frozen=True, slots=True)
class Disagreements:
    """`judged` of the `pairs` are; where any is, the worst are of those alone."""

    pairs: int
    alike: float | None
    worst: tuple[Disagreement, ...]
    judged: int = 0


def find(url: str, since: float | None, until: float | None, most: int = 10) -> Disagreements:
    """The `most` pairs that are judged furthest apart, or have the least in common. Raises `TierwiseError` for an unreadable ledger."""
    bounds = ((mirrors.c.created.__ge__, since), (mirrors.c.created.__lt__, until))
    wanted = sa.select(mirrors).where(*(compare(moment) for compare, moment in bounds if moment is not None)).order_by(mirrors.c.number)
    seen: list[tuple[float, bool]] = []

    def pairs(connection: sa.Connection) -> Iterator[Disagreement]:
        for batch in reader.rows(connection, wanted, PAIRS_AT_ONCE):
            for row in batch:
                found = _pair(row, known.get(row["decision_id"], {}))
                seen.append((found.alike, found.apart is not None))
                yield found

    with reader.reading(url) as connection:
        known = opinions.judged(connection)
        worst = heapq.nsmallest(most, pairs(connection), key=_order)
    judged = sum(is_judged for _, is_judged in seen)
    shown = [pair for pair in worst if pair.apart is not None or not judged]
    return Disagreements(len(seen), sum(alike for alike, _ in seen) / len(seen) if seen else None, tuple(shown), judged)


def _order(pair: Disagreement) -> tuple[float, float, str]:
    """Judged ones come first, the furthest apart before all."""
    return (1.0 if pair.apart is None else -pair.apart, pair.alike, pair.decision_id)


def _pair(row: Mapping[Any, Any], judged: Json) -> Disagreement:
    answers = {row["tier"]: row["answer"], row["mirror_tier"]: row["mirror_answer"]}
    small, large = answers.get(Tier.SMALL, ""), answers.get(Tier.LARGE, "")
    prompt = features.scored_text(json.loads(row["body"]))
    scores = judged.get("weak_score"), judged.get("strong_score")
    return Disagreement(row["decision_id"], alike(small, large), _short(prompt), _short(small), _short(large), *scores)


def alike(one: str, other: str) -> float:
    words = [set(WORD.findall(text.lower())) for text in (one, other)]
    either = words[0] | words[1]
    return len(words[0] & words[1]) / len(either) if either else float(one == other)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."
