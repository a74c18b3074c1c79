"""Pairs of answers out of the ledger, and where verdicts on them go: lines of a file, rows of the ledger's table."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain import Json, Tier
from serve_app.errors import RequestError, TierwiseError
from serve_app.evaluate import sources
from serve_app.observe import reader
from serve_app.observe.store import Store
from serve_app.observe.tables import judgements, mirrors
from serve_app.routing import features

PAGE = 32  # a prompt and two answers may have 256 KiB each
NOTHING = (
    "the ledger holds no mirrored answers in that time: ledger.store_prompts and live.mirror_share are off, or nothing was mirrored yet"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """`text` is what was scored, the last user turn; `body` the request that both models answered."""

    decision_id: str
    text: str
    body: Json


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good the first and the second answer are, in [0, 1]."""

    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Pair:
    number: int
    asked: Asked
    small: str
    large: str
    key: str | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair with its verdict on the small and the large model's answer, or with a fault; `at` is Unix time."""

    pair: Pair
    judge: str
    at: float
    verdict: Verdict | None = None
    fault: str | None = None

    def scores(self) -> Json:
        weak, strong = (None, None) if self.verdict is None else (self.verdict.first, self.verdict.second)
        return {"weak_score": weak, "strong_score": strong}


class Known(Protocol):
    """A place for verdicts; `known` are those of the same judge that it has, by decision."""

    known: dict[str, Verdict]

    def keep(self, judged: Sequence[Judged]) -> None: ...


class Lines:
    """Owns a JSONL file that grows; a line is a row for `calibrate --data`, `replay --outcomes` and `evaluate`."""

    def __init__(self, path: Path, judge: str) -> None:
        self._path = path
        before = [row for batch in sources.exported(path) for row in batch] if path.exists() else []
        self.known = _verdicts([row for row in before if row.get("judge") == judge], "id")

    def keep(self, judged: Sequence[Judged]) -> None:
        with self._path.open("a", encoding="utf-8", errors="replace") as file:
            for one in judged:
                file.write(json.dumps(_line(one), ensure_ascii=False) + "\n")
                if one.verdict is not None:
                    self.known[one.pair.asked.decision_id] = one.verdict


class Rows:
    """Owns a connection to the ledger that writes judgements, beside the ledger itself.

    Raises `TierwiseError` in one line when it cannot, as when somebody else keeps SQLite's lock for seconds.
    """

    def __init__(self, url: str, judge: str) -> None:
        with reader.reading(url) as connection:  # says in words what is no ledger, and makes none
            connection.execute(sa.select(sa.literal(1))).scalar()
        with _in_words():
            self._store = Store(url)
        with reader.reading(url) as connection:
            rows = connection.execute(sa.select(judgements).where(judgements.c.judge == judge)).mappings().all()
        self.known = _verdicts([dict(row) for row in rows], "decision_id")

    def keep(self, judged: Sequence[Judged]) -> None:
        with _in_words():
            self._store.judge([_row(one) for one in judged])
        self.known.update({one.pair.asked.decision_id: one.verdict for one in judged if one.verdict is not None})

    def close(self) -> None:
        self._store.close()


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise TierwiseError(f"the ledger does not take the verdicts: {type(error).__name__}") from None


def page(url: str, since: float | None, until: float | None, after: int) -> list[Pair]:
    """The next pairs in the order of writing; each page by a connection of its own, so that a judge of hours keeps no snapshot open."""
    with reader.reading(url) as connection:
        wanted = sa.select(mirrors).where(*_inside(since, until), mirrors.c.number > after).order_by(mirrors.c.number).limit(PAGE)
        return [_pair(row) for row in connection.execute(wanted).mappings()]


def count(url: str, since: float | None, until: float | None) -> int:
    """Pairs in that time. Raises `RequestError` when there is none."""
    with reader.reading(url) as connection:
        found = connection.execute(sa.select(sa.func.count()).select_from(mirrors).where(*_inside(since, until))).scalar_one()
    if not found:
        raise RequestError(NOTHING)
    return found


def _inside(since: float | None, until: float | None) -> list[sa.ColumnElement[bool]]:
    bounds = ((mirrors.c.created.__ge__, since), (mirrors.c.created.__lt__, until))
    return [compare(moment) for compare, moment in bounds if moment is not None]


def _pair(row: Any) -> Pair:
    body = json.loads(row["body"])
    answers = {row["tier"]: row["answer"], row["mirror_tier"]: row["mirror_answer"]}
    asked = Asked(row["decision_id"], features.scored_text(body), body)
    return Pair(row["number"], asked, answers.get(Tier.SMALL, ""), answers.get(Tier.LARGE, ""), row["key"], row["session"])


def _line(one: Judged) -> Json:
    asked = one.pair.asked
    said = {"id": asked.decision_id, "prompt": asked.text, **one.scores(), "judge": one.judge, "decision_id": asked.decision_id}
    return {**said, "created": one.at, **({"fault": one.fault} if one.fault is not None else {})}


def _row(one: Judged) -> Json:
    names = {"decision_id": one.pair.asked.decision_id, "judge": one.judge, "created": one.at}
    return {**names, "key": one.pair.key, "session": one.pair.session, **one.scores(), "fault": one.fault}


def _verdicts(rows: Sequence[Json], name: str) -> dict[str, Verdict]:
    """Faults are tried again."""
    try:
        scored = [row for row in rows if row["weak_score"] is not None and row["strong_score"] is not None]
        return {str(row[name]): Verdict(float(row["weak_score"]), float(row["strong_score"])) for row in scored}
    except (KeyError, TypeError, ValueError):
        raise RequestError("--out: the file is there already and holds something else than verdicts") from None
