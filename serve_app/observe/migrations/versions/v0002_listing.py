"""Decisions are listed newest first under filters. Two indexes, over all of them and over a key's, have every filter in them: one that
hardly anything passes reads the index and not the rows. They also do what those that they replace did. And whose threshold it was.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LISTED = ["created", "id", "tier", "reason", "outcome", "mode", "score"]


def upgrade() -> None:
    op.create_index("ix_decisions_listing", "decisions", LISTED)
    op.create_index("ix_decisions_key_listing", "decisions", ["key", *LISTED])
    op.drop_index("ix_decisions_created", "decisions")
    op.drop_index("ix_decisions_key_created", "decisions")
    op.add_column("decisions", sa.Column("own_threshold", sa.Boolean))
