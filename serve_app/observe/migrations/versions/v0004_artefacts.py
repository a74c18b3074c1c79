"""Calibration artefacts by their hashes, and the history of what was put live."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

Column, String, Double, Text = sa.Column, sa.String, sa.Double, sa.Text


def upgrade() -> None:
    op.create_table(
        "artefacts",
        Column("sha256", String(64), primary_key=True),
        Column("created", Double, nullable=False),
        Column("kind", String(16), nullable=False),
        Column("embedder", String(255), nullable=False),
        Column("size", sa.Integer, nullable=False),
        Column("blob", sa.LargeBinary, nullable=False),
        Column("report", Text, nullable=False),
        Column("forced", sa.Boolean, nullable=False),
    )
    op.create_table(
        "promotions",
        Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("at", Double, nullable=False),
        Column("application", String(255), nullable=False),
        Column("action", String(16), nullable=False),
        Column("calibration", String(64), nullable=False),
        Column("previous", String(64), nullable=False),
        Column("threshold", Double),
        Column("previous_threshold", Double),
        Column("by", String(255), nullable=False),
        Column("forced", sa.Boolean, nullable=False),
        Column("gate", Text),
    )
