"""The one place where errors become HTTP, in OpenAI's shape. No internal text leaves through here."""

import logging
import math

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from serve_app import errors

log = logging.getLogger(__name__)
# The other errors of the tree speak to whoever starts tierwise; a client that meets one has met a bug.
FOR_CLIENTS = (errors.RequestError, errors.Overloaded, errors.UpstreamError)
MAX_MESSAGE, MAX_PARAM = 1000, 200
SCHEMA_HEADER = {"x-tierwise-schema": "1"}


def install(app: FastAPI) -> None:
    app.add_exception_handler(errors.TierwiseError, _ours)
    app.add_exception_handler(HTTPException, _starlette)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unexpected)


def response(error: errors.TierwiseError, headers: dict[str, str] | None = None) -> JSONResponse:
    """OpenAI's error body with the class's status."""
    param = error.param[:MAX_PARAM] if error.param is not None else None
    body = {"error": {"message": error.message[:MAX_MESSAGE], "type": error.type, "param": param, "code": error.code}}
    extra = dict(headers or {})
    if error.retry_after is not None:
        extra["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, errors.Unauthorized):
        extra["www-authenticate"] = "Bearer"
    return JSONResponse(body, status_code=error.status, headers={**SCHEMA_HEADER, **extra})


async def answer(request: Request, error: Exception) -> Response:
    """For an error that was raised outside of any route."""
    return await (_ours(request, error) if isinstance(error, errors.TierwiseError) else _unexpected(request, error))


def route_of(scope: Scope) -> str:
    """The route's pattern, for logs: a path itself is a client's text."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


async def _ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, FOR_CLIENTS):
        return await _unexpected(request, error)
    if type(error).status >= 500:
        log.warning("%s %s: %s: %s", request.method, route_of(request.scope), type(error).__name__, error.message)
    return response(error, decision_header(request))


async def _starlette(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        allowed = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        return response(errors.MethodNotAllowed(f"{request.method} is not allowed here."), allowed)
    if status == 404:
        return response(errors.NotFound(f"There is nothing at {request.url.path}.", code="not_found"))
    return response(errors.RequestError("The request cannot be served.")) if status < 500 else await _unexpected(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    del request, error
    return response(errors.RequestError("The request's parameters are not valid.", code="invalid_value"))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s: unexpected %s", request.method, route_of(request.scope), type(error).__name__, exc_info=error)
    return response(errors.TierwiseError("Something went wrong on our side.", code="internal_error"), decision_header(request))


def decision_header(request: Request) -> dict[str, str]:
    decision_id = getattr(request.state, "decision_id", None)
    return {"x-tierwise-decision-id": decision_id} if decision_id else {}
