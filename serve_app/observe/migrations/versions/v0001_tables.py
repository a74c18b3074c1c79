"""The tables as they were when versions began; an older database is given what it lacks.

They stand here once more, and stay as they are: `tables.py` goes on changing.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

metadata = sa.MetaData()
Column, String, Double, Integer, Text = sa.Column, sa.String, sa.Double, sa.Integer, sa.Text
BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
decisions = sa.Table(
    "decisions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created", Double, nullable=False, index=True),
    Column("tier", String(8), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("score", Double),
    Column("threshold", Double, nullable=False),
    Column("calibration", String(64), nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("all_large_usd", Double, nullable=False),
    Column("overhead_seconds", Double, nullable=False),
    Column("total_seconds", Double, nullable=False),
    Column("receipt", Text, nullable=False),
    Column("key", String(255)),
    Column("session", String(256), index=True),
    Column("kind", String(16)),
    Column("stream", sa.Boolean),
    Column("chosen", String(8)),
    sa.Index("ix_decisions_key_created", "key", "created"),
)
attempts = sa.Table(
    "attempts",
    metadata,
    Column("decision_id", String(64), sa.ForeignKey("decisions.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("tier", String(8), nullable=False),
    Column("model", String(255), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("started", Double, nullable=False),
    Column("first_token", Double),
    Column("ended", Double, nullable=False),
)
prompts = sa.Table(
    "prompts",
    metadata,
    Column("decision_id", String(64), primary_key=True),
    Column("created", Double, nullable=False, index=True),
    Column("key", String(255), index=True),
    Column("session", String(256), index=True),
    Column("body", Text, nullable=False),
)
mirrors = sa.Table(
    "mirrors",
    metadata,
    Column("number", BIG, primary_key=True, autoincrement=True),
    Column("decision_id", String(64), nullable=False, unique=True),
    Column("created", Double, nullable=False, index=True),
    Column("key", String(255), index=True),
    Column("session", String(256), index=True),
    Column("body", Text, nullable=False),
    Column("tier", String(8), nullable=False),
    Column("answer", Text, nullable=False),
    Column("mirror_tier", String(8), nullable=False),
    Column("mirror_model", String(255), nullable=False),
    Column("mirror_answer", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cost_usd", Double, nullable=False),
    sqlite_autoincrement=True,
)
forgotten = sa.Table(
    "forgotten",
    metadata,
    Column("number", BIG, primary_key=True, autoincrement=True),
    Column("key", String(255)),
    Column("session", String(256)),
    Column("at", Double, nullable=False),
)
CHUNK = 500


def upgrade() -> None:
    connection = op.get_bind()
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        _add_columns(connection, table)
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    _fill(connection)


def _add_columns(connection: sa.Connection, table: sa.Table) -> None:
    """Those that were added later are all nullable."""
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            op.add_column(table.name, sa.Column(column.name, column.type))


def _fill(connection: sa.Connection) -> None:
    """The first tables kept these in the receipt alone, where a deletion by session would not find them."""
    old = sa.select(decisions.c.id, decisions.c.receipt).where(decisions.c.kind.is_(None)).limit(CHUNK)
    update = decisions.update().where(decisions.c.id == sa.bindparam("of"))
    while chunk := connection.execute(old).all():
        made = [(row.id, json.loads(row.receipt)) for row in chunk]
        rows = [{"of": of, "session": it.get("session"), "kind": it.get("kind", "chat"), "stream": it.get("stream")} for of, it in made]
        connection.execute(update, rows)
