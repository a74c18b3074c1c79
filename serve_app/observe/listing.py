"""A page of decisions as one statement. It goes on behind a place, (created, id), not behind a count: what is written meanwhile
neither repeats a row nor hides one."""

import sqlalchemy as sa

from serve_app.domain import DecisionQuery
from serve_app.observe.tables import decisions

COLUMNS = [column for column in decisions.columns if column.name != "receipt"]
EQUAL = ("tier", "reason", "outcome", "mode", "session", "key")


def listed(query: DecisionQuery) -> sa.Select[tuple[object, ...]]:
    newest = (decisions.c.created.desc(), decisions.c.id.desc())
    return sa.select(*COLUMNS).where(*_wanted(query)).order_by(*newest).limit(query.limit)


def _wanted(query: DecisionQuery) -> list[sa.ColumnElement[bool]]:
    table = decisions.c
    wanted = [table[name] == value for name in EQUAL if (value := getattr(query, name)) is not None]
    bounds = (
        (table.created.__ge__, query.since),
        (table.created.__lt__, query.until),
        (table.score.__ge__, query.min_score),
        (table.score.__le__, query.max_score),
    )
    wanted += [compare(value) for compare, value in bounds if value is not None]
    if query.before is not None:
        created, last = query.before
        wanted.append(sa.tuple_(table.created, table.id) < sa.tuple_(sa.literal(created), sa.literal(last)))
    return wanted
