"""The ledger's tables and what stands in their rows. SQLAlchemy Core, so that the database is a URL.

A change here needs a step in `migrations/versions`; a test compares the two.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from serve_app.domain import Feedback, Json, MirrorPair
from serve_app.observe.receipt import PROMPT, shown

metadata = sa.MetaData()
LISTED = ("created", "id", "tier", "reason", "outcome", "mode", "score")  # see `listing.py`

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("created", sa.Double, nullable=False),
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
    # Later than the first version, and therefore nullable.
    sa.Column("key", sa.String(255)),
    sa.Column("session", sa.String(256), index=True),
    sa.Column("kind", sa.String(16)),
    sa.Column("stream", sa.Boolean),
    sa.Column("chosen", sa.String(8)),
    sa.Column("own_threshold", sa.Boolean),
    sa.Index("ix_decisions_listing", *LISTED),
    sa.Index("ix_decisions_key_listing", "key", *LISTED),
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

# No foreign keys on these two: a prompt or a pair may outlive its decision's record, which a full queue dropped.
prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("decision_id", sa.String(64), primary_key=True),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("key", sa.String(255), index=True),
    sa.Column("session", sa.String(256), index=True),
    sa.Column("body", sa.Text, nullable=False),
)

mirrors = sa.Table(
    "mirrors",
    metadata,
    # In the order of writing, so that a reader who goes on behind the last number has missed nothing.
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("decision_id", sa.String(64), nullable=False, unique=True),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("key", sa.String(255), index=True),
    sa.Column("session", sa.String(256), index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("tier", sa.String(8), nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("mirror_tier", sa.String(8), nullable=False),
    sa.Column("mirror_model", sa.String(255), nullable=False),
    sa.Column("mirror_answer", sa.Text, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("cost_usd", sa.Double, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice, also when the last row was deleted
)

# What people say of an answer: the last word of each key, `by`, which is empty where no key is asked for. No foreign keys here
# either: the record may come later, from another ingress.
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("decision_id", sa.String(64), primary_key=True),
    sa.Column("by", sa.String(255), primary_key=True),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("key", sa.String(255), index=True),
    sa.Column("session", sa.String(256), index=True),
    sa.Column("tier", sa.String(8), nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("comment", sa.Text),
)

# What `tierwise judge` says of two answers; where it could not, `fault` says why and there are no scores.
judgements = sa.Table(
    "judgements",
    metadata,
    sa.Column("decision_id", sa.String(64), primary_key=True),
    sa.Column("judge", sa.String(128), primary_key=True),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("key", sa.String(255), index=True),
    sa.Column("session", sa.String(256), index=True),
    sa.Column("weak_score", sa.Double),
    sa.Column("strong_score", sa.Double),
    sa.Column("fault", sa.String(64)),
)

# What was deleted lately: a record that is still on its way must not bring it back, also after a restart. Pruned hourly.
forgotten = sa.Table(
    "forgotten",
    metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("key", sa.String(255)),
    sa.Column("session", sa.String(256)),
    sa.Column("at", sa.Double, nullable=False),
)


# An artefact's name is the hash of its bytes: a row is never changed. See `artefacts.py`.
artefacts = sa.Table(
    "artefacts",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("embedder", sa.String(255), nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("report", sa.Text, nullable=False),
    sa.Column("forced", sa.Boolean, nullable=False),
)

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("application", sa.String(255), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("calibration", sa.String(64), nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("threshold", sa.Double),
    sa.Column("previous_threshold", sa.Double),
    sa.Column("by", sa.String(255), nullable=False),
    sa.Column("forced", sa.Boolean, nullable=False),
    sa.Column("gate", sa.Text),
)

CHUNK = 500  # receipts that are rewritten in one transaction


def rewriting(
    engine: sa.Engine, which: list[sa.ColumnElement[bool]], names: tuple[str, ...], change: Callable[[str], dict[str, Any] | None]
) -> Iterator[int]:
    """Set the columns `names` of decisions to what `change` makes of their receipts; None leaves one alone.

    Chunk by chunk, a transaction each; gives how many of it were changed.
    """
    last: str | None = ""
    update = decisions.update().where(decisions.c.id == sa.bindparam("of")).values({name: sa.bindparam(f"new_{name}") for name in names})
    while last is not None:
        with engine.begin() as connection:
            wanted = sa.select(decisions.c.id, decisions.c.receipt).where(*which, decisions.c.id > last).order_by(decisions.c.id)
            chunk = connection.execute(wanted.limit(CHUNK)).all()
            made = {row.id: new for row in chunk if (new := change(row.receipt)) is not None}
            if made:
                connection.execute(update, [{"of": of, **{f"new_{name}": new[name] for name in names}} for of, new in made.items()])
        yield len(made)
        last = chunk[-1].id if len(chunk) == CHUNK else None


def decision_row(receipt: Json) -> Json:
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
        "receipt": json.dumps(shown(receipt)),
        **{name: receipt.get(name) for name in ("key", "session", "kind", "stream")},  # an ingress that is leaving may be older
        **{name: decision.get(name) for name in ("chosen", "own_threshold")},
    }


def attempt_rows(receipt: Json) -> list[Json]:
    return [
        {
            "decision_id": receipt["id"],
            "number": number,
            **{name: attempt[name] for name in ("tier", "model", "outcome", "cost_usd", "started", "first_token", "ended")},
            **{name: attempt["usage"][name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")},
        }
        for number, attempt in enumerate(receipt["attempts"])
    ]


def prompt_row(receipt: Json) -> Json:
    return {
        "decision_id": receipt["id"],
        **{name: receipt.get(name) for name in ("created", "key", "session")},
        "body": json.dumps(receipt[PROMPT]),
    }


def mirror_row(pair: MirrorPair) -> Json:
    return {
        **{name: getattr(pair, name) for name in ("decision_id", "created", "key", "session", "mirror_model")},
        "body": json.dumps(dict(pair.prompt)),
        "tier": pair.tier.value,
        "answer": _text(pair.answer),
        "mirror_tier": pair.mirror_tier.value,
        "mirror_answer": _text(pair.mirror_answer),
        "prompt_tokens": pair.mirror_usage.prompt_tokens,
        "completion_tokens": pair.mirror_usage.completion_tokens,
        "cost_usd": pair.mirror_cost_usd,
    }


def feedback_row(given: Feedback) -> Json:
    return {
        **{name: getattr(given, name) for name in ("decision_id", "created", "key", "session", "score")},
        "by": given.by or "",
        "tier": given.tier.value,
        "comment": None if given.comment is None else _text(given.comment),
    }


def _text(value: str) -> str:
    """PostgreSQL's text holds no NUL, and no database's holds half of a surrogate pair: JSON escapes them, plain text cannot."""
    return value.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
