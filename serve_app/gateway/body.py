"""Read a request body: bounded in size and time, and nothing but one JSON object."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, NoReturn

from starlette.requests import Request

from serve_app.domain import Json
from serve_app.errors import BodyTooLarge, RequestError, RequestTimeout
from serve_app.settings import Limits

MAX_DEPTH = 100
LEFT = "The client left before its request was complete."
log = logging.getLogger(__name__)


async def read_json(request: Request, limits: Limits) -> Json:
    """The body as a JSON object. Raises `BodyTooLarge`, `RequestTimeout` or `RequestError`."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.max_body_bytes:
        _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            data = await _read(request, limits)
    except TimeoutError:
        raise RequestTimeout("The request body did not arrive in time.") from None
    return parse(data)


def parse(data: bytes) -> Json:
    """Raises `RequestError` for anything but one JSON object in UTF-8 (RFC 8259: no NaN, no infinities)."""
    try:
        text = data.decode("utf-8")
        body = json.loads(text, parse_constant=_no_constants)
        if "\\u" in text:
            json.dumps(body, ensure_ascii=False).encode()  # half of a surrogate pair is no character: no tokenizer takes it
    except UnicodeError:
        raise RequestError("The request body is not valid UTF-8.", code="invalid_json") from None
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestError(f"The request body is not valid JSON{where}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise RequestError("The request body must be a JSON object.", code="invalid_json")
    if _is_deep(body):
        raise RequestError(f"The request body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json")
    return body


def _is_deep(body: Json) -> bool:
    """Level by level: what is nested without end would exhaust the stack of whoever walks it later."""
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        inner = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return False
    return True


async def _read(request: Request, limits: Limits) -> bytes:
    chunks, size = [], 0
    async for chunk in _arriving(request):
        size += len(chunk)
        if size > limits.max_body_bytes:
            _too_large(limits)
        chunks.append(chunk)
    return b"".join(chunks)


async def _arriving(request: Request) -> AsyncGenerator[bytes]:
    """Raises `RequestError` when the connection ends first. Serve tells that by whatever its transport raises."""
    try:
        async for chunk in request.stream():
            yield chunk
    except Exception as error:  # noqa: BLE001 - a transport whose client left raises what it likes: nobody is there to be answered
        log.debug("a request broke off: %s", type(error).__name__)
        raise RequestError(LEFT) from None


def _too_large(limits: Limits) -> NoReturn:
    raise BodyTooLarge(f"The request body is larger than the {limits.max_body_bytes} bytes allowed.")


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
