"""`GET /v1/decisions`: its query, who may ask it, and pages of its answer."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams

from serve_app.domain import Client, DecisionQuery, Json, Mode, Outcome, Reason, Tier
from serve_app.errors import Forbidden, RequestError
from serve_app.explain import nearest

MOST = 500
CURSOR = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,20})?)_([\x21-\x7e]{1,64})")
Moment = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]  # no database knows a NUL


class Query(BaseModel):
    """What a client may put behind the question mark."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MOST, description="Decisions of one page.")
    cursor: str | None = Field(default=None, max_length=100, description="`next_cursor` of the page before.")
    since: Moment | None = Field(default=None, description="Made at or after this Unix time, in seconds.")
    until: Moment | None = Field(default=None, description="Made before this Unix time, in seconds.")
    tier: Tier | None = Field(default=None, description="The tier that answered, or was to answer.")
    reason: Reason | None = Field(default=None, description="Why that tier.")
    outcome: Outcome | None = Field(default=None, description="How the request ended.")
    mode: Mode | None = Field(default=None, description="The router's mode.")
    session: Name | None = Field(default=None, description="As `x-session-id` named it.")
    key: Name | None = Field(default=None, description="A key's public name; another's is for an admin key.")
    min_score: Fraction | None = Field(default=None, description="With at least this score.")
    max_score: Fraction | None = Field(default=None, description="With at most this score.")


class Page(BaseModel):
    """The answer's shape, for the document; OpenAI's lists look alike."""

    object: Literal["list"]
    data: list[Json]
    has_more: bool
    next_cursor: str | None = Field()


def parse(params: QueryParams, client: Client) -> DecisionQuery:
    """One row more than a page is asked for: it tells whether there is another page. Raises `RequestError` or `Forbidden`."""
    given = dict(params)
    for name in given:
        if name not in Query.model_fields:
            raise _invalid(name, f"unknown parameter{nearest(name, sorted(Query.model_fields))}")
        if len(params.getlist(name)) > 1:
            raise _invalid(name, "must be given once")
    try:
        query = Query.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _invalid(str(first["loc"][0]), str(first["msg"])) from None
    filters = query.model_dump(exclude={"cursor", "key", "limit"}, mode="json")
    return DecisionQuery(**filters, key=_whose(client, query.key), limit=query.limit + 1, before=_place(query.cursor))


def page(rows: Sequence[Json], query: DecisionQuery) -> Json:
    shown, more = rows[: query.limit - 1], len(rows) == query.limit
    data = [{"object": "decision", **row, "saved_usd": round(row["all_large_usd"] - row["cost_usd"], 12)} for row in shown]
    return {"object": "list", "data": data, "has_more": more, "next_cursor": _cursor(shown[-1]) if more else None}


def _whose(client: Client, key: str | None) -> str | None:
    if client.admin:
        return key
    if key not in (None, client.key):
        raise Forbidden("Only an admin key may list what belongs to another key.", param="key")
    return client.key


def _cursor(row: Json) -> str:
    return f"{row['created']!r}_{row['id']}"


def _place(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    found = CURSOR.fullmatch(cursor)
    if found is None:
        raise _invalid("cursor", "must be the next_cursor of a page")
    return float(found[1]), found[2]


def _invalid(name: str, says: str) -> RequestError:
    return RequestError(f"{name}: {says}.", code="invalid_value", param=name)
