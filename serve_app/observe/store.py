"""The ledger's tables: one row per request and one per attempt. SQLAlchemy Core, so that the database is a URL."""

import json
from typing import Any

import sqlalchemy as sa

from serve_app.domain import Json

metadata = sa.MetaData()

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("tier", sa.String(8), nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("mode", sa.String(8), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("calibration", sa.String(64), nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("cached_tokens", sa.Integer, nullable=False),
    sa.Column("cost_usd", sa.Double, nullable=False),
    sa.Column("all_large_usd", sa.Double, nullable=False),
    sa.Column("overhead_seconds", sa.Double, nullable=False),
    sa.Column("total_seconds", sa.Double, nullable=False),
    sa.Column("receipt", sa.Text, nullable=False),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("decision_id", sa.String(64), sa.ForeignKey("decisions.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("tier", sa.String(8), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("cached_tokens", sa.Integer, nullable=False),
    sa.Column("cost_usd", sa.Double, nullable=False),
    sa.Column("started", sa.Double, nullable=False),
    sa.Column("first_token", sa.Double),
    sa.Column("ended", sa.Double, nullable=False),
)


class Store:
    """Owns the database connection. Blocking: one thread writes. Receipts are the plain data of `receipt.receipt`."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _tune_sqlite)
        metadata.create_all(self._engine)

    def write(self, receipts: list[Json]) -> None:
        """Write a batch in one transaction. A receipt that is there already is left alone: a retry is harmless."""
        with self._engine.begin() as connection:
            new = self._unknown(connection, receipts)
            if new:
                connection.execute(decisions.insert(), [_decision_row(r) for r in new])
            if rows := [row for r in new for row in _attempt_rows(r)]:
                connection.execute(attempts.insert(), rows)

    def _unknown(self, connection: sa.Connection, receipts: list[Json]) -> list[Json]:
        by_id = {r["id"]: r for r in receipts}
        known = connection.execute(sa.select(decisions.c.id).where(decisions.c.id.in_(list(by_id)))).scalars()
        for key in known:
            del by_id[key]
        return list(by_id.values())

    def get(self, decision_id: str) -> Json | None:
        with self._engine.connect() as connection:
            text = connection.execute(sa.select(decisions.c.receipt).where(decisions.c.id == decision_id)).scalar()
        return json.loads(text) if text is not None else None

    def count(self) -> int:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(decisions)).scalar_one()

    def close(self) -> None:
        self._engine.dispose()


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Readers do not block the writer (WAL), and a commit is one sync at most."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _decision_row(receipt: Json) -> Json:
    decision, usage = receipt["decision"], receipt["usage"]
    return {
        "id": receipt["id"],
        "created": receipt["created"],
        "tier": decision["tier"],
        "reason": decision["reason"],
        "mode": decision["mode"],
        "outcome": receipt["outcome"],
        "score": decision["score"]["value"],
        "threshold": decision["threshold"],
        "calibration": decision["score"]["calibration"],
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "cached_tokens": usage["cached_tokens"],
        "cost_usd": receipt["cost_usd"],
        "all_large_usd": receipt["all_large_usd"],
        "overhead_seconds": receipt["overhead_seconds"],
        "total_seconds": receipt["total_seconds"],
        "receipt": json.dumps(receipt),
    }


def _attempt_rows(receipt: Json) -> list[Json]:
    return [
        {
            "decision_id": receipt["id"],
            "number": number,
            **{name: attempt[name] for name in ("tier", "model", "outcome", "cost_usd", "started", "first_token", "ended")},
            **{name: attempt["usage"][name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")},
        }
        for number, attempt in enumerate(receipt["attempts"])
    ]
