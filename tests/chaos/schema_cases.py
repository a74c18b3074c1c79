"""What schemathesis makes of the OpenAPI document: bodies that fit it, and bodies that just do not."""

from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode

from tests.chaos.hostile import Hostile

KEPT = ("method", "url", "headers", "json", "data", "params", "cookies")
OURS = {"user-agent", "accept-encoding", "connection", "content-length", "x-schemathesis-testcaseid"}


def cases(document: dict[str, Any], each: int) -> list[Hostile]:
    """Up to `each` requests of either kind for every operation; the same ones each time."""
    found: list[Hostile] = []
    for operation in schemathesis.openapi.from_dict(document).get_all_operations():
        for mode in GenerationMode:
            found += _of(operation.ok(), mode, each)
    return found


def _of(operation: Any, mode: GenerationMode, each: int) -> list[Hostile]:
    found: list[Hostile] = []

    @settings(
        max_examples=each, phases=[Phase.generate], deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy(generation_mode=mode))
    def gather(case: Any) -> None:
        found.append(_request(case, f"schema, {mode.value}"))

    try:
        gather()
    except Exception as error:  # an operation without parameters has nothing that could be negative
        if type(error).__name__ not in {"Unsatisfiable", "SkipTest"}:
            raise
    return found


def _request(case: Any, why: str) -> Hostile:
    given_kwargs = {name: value for name, value in case.as_transport_kwargs(base_url="http://host").items() if name in KEPT}
    prepared = requests.Request(**given_kwargs).prepare()
    url = urlsplit(prepared.url or "")
    body = prepared.body if isinstance(prepared.body, bytes) else (prepared.body or "").encode("utf-8", "surrogatepass")
    headers = tuple((name, _text(value)) for name, value in prepared.headers.items() if name.lower() not in OURS)
    return Hostile(why, prepared.method or "GET", f"{url.path}?{url.query}" if url.query else url.path, body, headers)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
