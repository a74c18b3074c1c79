"""What people and judges say of answers, in the ledger's database: kept, shown with a receipt, forgotten, and read for `replay`.

A connection comes from the caller, and with it the transaction.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from serve_app.domain import Feedback, Json
from serve_app.observe import reader
from serve_app.observe.tables import decisions, feedback, feedback_row, judgements

AT_ONCE = 500  # names in one statement
SAID = ("created", "score", "comment")
JUDGED = ("judge", "created", "weak_score", "strong_score")


def keep_feedback(connection: sa.Connection, given: Sequence[Feedback]) -> None:
    """The latest of each key on each decision; one that comes late, or twice, does not replace a later one."""
    newest: dict[tuple[str, str], Json] = {}
    for one in sorted(given, key=lambda said: said.created):
        row = feedback_row(one)
        newest[row["decision_id"], row["by"]] = row
    pair = sa.tuple_(feedback.c.decision_id, feedback.c.by)
    for part in _parts(list(newest)):
        kept = connection.execute(sa.select(feedback.c.decision_id, feedback.c.by, feedback.c.created).where(pair.in_(part)))
        for decision_id, by, created in kept.all():
            if created > newest[decision_id, by]["created"]:
                del newest[decision_id, by]
        if left := [name for name in part if name in newest]:
            connection.execute(feedback.delete().where(pair.in_(left)))
            connection.execute(feedback.insert(), [newest[name] for name in left])


def keep_judgements(connection: sa.Connection, rows: Sequence[Json]) -> None:
    """Rows of the table; what the same judge said of the same decision before is replaced."""
    latest = {(row["decision_id"], row["judge"]): row for row in rows}
    pair = sa.tuple_(judgements.c.decision_id, judgements.c.judge)
    for part in _parts(list(latest)):
        connection.execute(judgements.delete().where(pair.in_(part)))
        connection.execute(judgements.insert(), [latest[name] for name in part])


def of(connection: sa.Connection, decision_id: str) -> Json:
    """`feedback` and `judgements` of a decision, oldest first; only what there is."""
    said = sa.select(feedback).where(feedback.c.decision_id == decision_id).order_by(feedback.c.created)
    by_judge = sa.select(judgements).where(judgements.c.decision_id == decision_id, judgements.c.fault.is_(None))
    found = {
        "feedback": [{"by": row["by"] or None, **_only(row, SAID)} for row in connection.execute(said).mappings()],
        "judgements": [_only(row, JUDGED) for row in connection.execute(by_judge.order_by(judgements.c.created)).mappings()],
    }
    return {name: rows for name, rows in found.items() if rows}


def forget(connection: sa.Connection, key: str | None, session: str | None) -> None:
    """What was said of a key's, a session's, or a key's session's decisions, and what a whole key said of any."""
    for table in (feedback, judgements):
        named = [table.c[name] == value for name, value in (("key", key), ("session", session)) if value is not None]
        connection.execute(table.delete().where(*named))
    if key is not None and session is None:
        connection.execute(feedback.delete().where(feedback.c.by == key))


def prune(connection: sa.Connection, before_comments: float, before_rows: float | None) -> None:
    """Comments grow old as prompts do, scores and judgements as their decision's record. Unix times."""
    connection.execute(feedback.update().where(feedback.c.created < before_comments, feedback.c.comment.is_not(None)).values(comment=None))
    if before_rows is not None:
        old = sa.select(decisions.c.id).where(decisions.c.created < before_rows)
        for table in (feedback, judgements):
            connection.execute(table.delete().where(table.c.decision_id.in_(old) | (table.c.created < before_rows)))


def outcomes(connection: sa.Connection, since: float | None, until: float | None) -> dict[str, Json]:
    """By the id of decisions made in [since, until): the last judgement's scores, and the mean of what people say.

    A ledger from before there was either has none.
    """
    if not sa.inspect(connection).has_table(judgements.name):
        return {}
    inside = reader.between(since, until)
    found = _last_judgements(connection, sa.select(judgements).join(decisions, decisions.c.id == judgements.c.decision_id).where(*inside))
    said = sa.select(feedback.c.decision_id, sa.func.avg(feedback.c.score).label("score"))
    said = said.join(decisions, decisions.c.id == feedback.c.decision_id).where(*inside).group_by(feedback.c.decision_id)
    for row in connection.execute(said):
        found.setdefault(row.decision_id, {})["feedback"] = float(row.score)
    return found


def judged(connection: sa.Connection) -> dict[str, Json]:
    """The last judgement's scores, by decision: also of mirrors whose record a full queue dropped."""
    return _last_judgements(connection, sa.select(judgements)) if sa.inspect(connection).has_table(judgements.name) else {}


def _last_judgements(connection: sa.Connection, wanted: sa.Select[Any]) -> dict[str, Json]:
    rows = connection.execute(wanted.where(judgements.c.fault.is_(None)).order_by(judgements.c.created)).mappings()
    return {row["decision_id"]: _only(row, JUDGED[2:]) for row in rows}


def _only(row: Any, names: Sequence[str]) -> Json:
    return {name: row[name] for name in names}


def _parts(names: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    return [names[first : first + AT_ONCE] for first in range(0, len(names), AT_ONCE)]
