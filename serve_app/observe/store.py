"""The ledger's database: decisions and attempts, what is said of them, and where they are on prompts and mirrored answers."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from serve_app.domain import DecisionQuery, Feedback, Json, MirrorPair
from serve_app.observe import migrations, opinions
from serve_app.observe.artefacts import Artefacts
from serve_app.observe.listing import listed
from serve_app.observe.receipt import PROMPT, Row, scrubbed
from serve_app.observe.tables import (
    attempt_rows,
    attempts,
    decision_row,
    decisions,
    forgotten,
    mirror_row,
    mirrors,
    prompt_row,
    prompts,
    rewriting,
)


class Store:
    """Owns the database connection. Blocking: one thread writes. Receipts are the plain data of `receipt.row`."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self._sqlite = self._engine.dialect.name == "sqlite"
        if self._sqlite:
            sa.event.listen(self._engine, "connect", _tune_sqlite)
        migrations.upgrade(self._engine)
        self.artefacts = Artefacts(self._engine)

    def write(self, rows: Sequence[Row]) -> list[Json]:
        """Write a batch in one transaction. A row that is there already is left alone: a retry is harmless.

        Gives the receipts that were new.
        """
        pairs = {row.decision_id: row for row in rows if isinstance(row, MirrorPair)}
        receipts = {row["id"]: row for row in rows if not isinstance(row, MirrorPair | Feedback)}
        with self._engine.begin() as connection:
            new = _unknown(connection, decisions.c.id, receipts)
            _insert(connection, decisions, [decision_row(receipt) for receipt in new])
            _insert(connection, attempts, [row for receipt in new for row in attempt_rows(receipt)])
            _insert(connection, prompts, [prompt_row(receipt) for receipt in new if receipt.get(PROMPT) is not None])
            _insert(connection, mirrors, [mirror_row(pair) for pair in _unknown(connection, mirrors.c.decision_id, pairs)])
            opinions.keep_feedback(connection, [row for row in rows if isinstance(row, Feedback)])
        return new

    def get(self, decision_id: str) -> Json | None:
        """The receipt, with the feedback and judgements that there are."""
        with self._engine.connect() as connection:
            text = connection.execute(sa.select(decisions.c.receipt).where(decisions.c.id == decision_id)).scalar()
            return None if text is None else {**json.loads(text), **opinions.of(connection, decision_id)}

    def judge(self, rows: Sequence[Json]) -> None:
        """Keep rows of the table of judgements, in the place of what the same judge said of the same decision before."""
        with self._engine.begin() as connection:
            opinions.keep_judgements(connection, rows)

    def page(self, query: DecisionQuery) -> list[Json]:
        """Up to `query.limit` decisions, newest first: the columns of their rows."""
        with self._engine.connect() as connection:
            rows = connection.execute(listed(query)).mappings().all()
        return [dict(row) for row in rows]

    def count(self) -> int:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(decisions)).scalar_one()

    def mirrors(self, limit: int, after: int = 0) -> list[Json]:
        """Up to `limit` pairs in the order of writing, behind the pair whose `number` is `after`."""
        wanted = sa.select(mirrors).where(mirrors.c.number > after).order_by(mirrors.c.number).limit(limit)
        with self._engine.connect() as connection:
            rows = connection.execute(wanted).mappings().all()
        return [{**row, "body": json.loads(row["body"])} for row in rows]

    def spent_since(self, key_ids: Iterable[str], since: float) -> dict[str, float]:
        """Dollars by key since a Unix time; 0 for a key without rows. A mirror's cost is nobody's: no client asked for it."""
        keys = list(key_ids)
        wanted = (
            sa.select(decisions.c.key, sa.func.sum(decisions.c.cost_usd))
            .where(decisions.c.key.in_(keys), decisions.c.created >= since)
            .group_by(decisions.c.key)
        )
        with self._engine.connect() as connection:
            return {**dict.fromkeys(keys, 0.0), **{key: float(spent) for key, spent in connection.execute(wanted)}}

    def forget(self, key: str | None, session: str | None) -> int:
        """Delete the prompts, mirrors, feedback and judgements of a session, of a key, or of a session of a key; None is any.

        The decisions stay, for the accounts, without their session and the hash of their prompt. Gives the number of decisions that
        were changed; one that holds nothing any more is not counted again. Raises `ValueError` when neither is given.
        """
        return sum(self.forgetting(key, session))

    def forgetting(self, key: str | None, session: str | None, until: float | None = None) -> Iterator[int]:
        """`forget` step by step, a short transaction each, so that a key of a million decisions does not keep the writer waiting.

        The first one also keeps, where `until` is given, that records made up to then (Unix time) are to be forgotten.
        """
        if key is None and session is None:
            raise ValueError("forget needs a key or a session")
        with self._engine.begin() as connection:
            for table in (prompts, mirrors):
                connection.execute(table.delete().where(*_owned(table, key, session)))
            opinions.forget(connection, key, session)
            if until is not None:
                connection.execute(forgotten.insert().values(key=key, session=session, at=until))
        yield 0
        yield from rewriting(self._engine, _owned(decisions, key, session), ("session", "receipt"), _scrubbed)
        self._wipe()

    def forgotten(self, most: int) -> list[tuple[str | None, str | None, float]]:
        """The latest deletions, oldest first: key, session, and the Unix time up to which what was made is forgotten."""
        wanted = sa.select(forgotten.c.key, forgotten.c.session, forgotten.c.at).order_by(forgotten.c.number.desc()).limit(most)
        with self._engine.connect() as connection:
            return [(row.key, row.session, row.at) for row in reversed(connection.execute(wanted).all())]

    def prune(self, before_prompts: float, before_rows: float | None, before_deletions: float = 0.0) -> None:
        """Delete prompts and mirrors older than a Unix time, and decisions older than another, with all that hangs on them.

        Deletions before a third are not told by `forgotten` any more.
        """
        oldest_prompt = before_prompts if before_rows is None else max(before_prompts, before_rows)
        with self._engine.begin() as connection:
            for table in (prompts, mirrors):
                connection.execute(table.delete().where(table.c.created < oldest_prompt))
            opinions.prune(connection, oldest_prompt, before_rows)
            connection.execute(forgotten.delete().where(forgotten.c.at < before_deletions))
            if before_rows is not None:
                old = sa.select(decisions.c.id).where(decisions.c.created < before_rows)
                connection.execute(attempts.delete().where(attempts.c.decision_id.in_(old)))
                connection.execute(decisions.delete().where(decisions.c.created < before_rows))
        self._wipe()

    def close(self) -> None:
        self._engine.dispose()

    def _wipe(self) -> None:
        """SQLite's log keeps pages as they were until it is written back. PostgreSQL's old rows go with its next vacuum."""
        if self._sqlite:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Readers do not block the writer (WAL), a commit is one sync at most, and what is deleted is overwritten."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _unknown(connection: sa.Connection, column: sa.Column[Any], rows: dict[str, Any]) -> list[Any]:
    """The rows whose id is not in the table yet."""
    known = set(connection.execute(sa.select(column).where(column.in_(list(rows)))).scalars()) if rows else set()
    return [row for name, row in rows.items() if name not in known]


def _insert(connection: sa.Connection, table: sa.Table, rows: list[Json]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _owned(table: sa.Table, key: str | None, session: str | None) -> list[sa.ColumnElement[bool]]:
    named = {"key": key, "session": session}
    return [table.c[name] == value for name, value in named.items() if value is not None]


def _scrubbed(receipt: str) -> dict[str, Any] | None:
    text = json.dumps(scrubbed(json.loads(receipt)))
    return None if text == receipt else {"session": None, "receipt": text}
