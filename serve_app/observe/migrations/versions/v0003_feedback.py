"""What people say of answers, and what `tierwise judge` says of two answers to one prompt."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NAMED = ("created", "key", "session")


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("decision_id", sa.String(64), primary_key=True),
        sa.Column("by", sa.String(255), primary_key=True),
        *_named(),
        sa.Column("tier", sa.String(8), nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("comment", sa.Text),
    )
    op.create_table(
        "judgements",
        sa.Column("decision_id", sa.String(64), primary_key=True),
        sa.Column("judge", sa.String(128), primary_key=True),
        *_named(),
        sa.Column("weak_score", sa.Double),
        sa.Column("strong_score", sa.Double),
        sa.Column("fault", sa.String(64)),
    )
    for table in ("feedback", "judgements"):
        for column in NAMED:
            op.create_index(f"ix_{table}_{column}", table, [column])


def _named() -> list[sa.Column[object]]:
    created = sa.Column("created", sa.Double, nullable=False)
    return [created, sa.Column("key", sa.String(255)), sa.Column("session", sa.String(256))]
