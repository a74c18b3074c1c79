"""JSON logs: one `request` line per answered request, and every line inside a request carries its decision's id.

Never in a line: a prompt, an answer, a key, or a message of an exception, which may quote any of them. Of an exception its
classes and places are told, the message only of our own errors.
"""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO, TypeGuard

from pythonjsonlogger.json import JsonFormatter

from serve_app.domain import Record
from serve_app.errors import RequestError, TierwiseError

ROOT = "serve_app"
MAX_CAUSES = 5
log = logging.getLogger(__name__)


@dataclass
class Line:
    """What one request's line will say. Lives in the request's context, and is filled in on the way."""

    route: str = ""
    method: str = ""
    decision_id: str | None = None
    key: str | None = None
    status: int | None = None
    record: Record | None = None


_line: ContextVar[Line | None] = ContextVar("tierwise_line", default=None)


@contextmanager
def request_line() -> Iterator[Line]:
    """Everything logged inside belongs to one request."""
    token = _line.set(Line())
    try:
        yield _current()
    finally:
        _line.reset(token)


def _current() -> Line:
    return _line.get() or Line()


def bind(*, decision_id: str | None = None, key: str | None = None) -> None:
    """Name the request that is being served; outside of one nothing happens."""
    line = _current()
    line.decision_id = decision_id or line.decision_id
    line.key = key or line.key


def recorded(record: Record) -> None:
    """A listener of records. One that is settled after its answer went out comes too late for the line, whose tokens are null."""
    line = _current()
    if line.decision_id == record.id:
        line.record = record


def write(line: Line, seconds: float) -> None:
    """The `request` line. A client that left before any answer has no status."""
    log.info("request", extra={name: value for name, value in _fields(line, seconds).items() if value is not None})


def _fields(line: Line, seconds: float) -> dict[str, Any]:
    fields = {
        "method": line.method,
        "route": line.route,
        "status": line.status,
        "seconds": round(seconds, 4),
        "key": line.key,
    }
    record = line.record
    if record is None:
        return fields
    decision, usage = record.decision, record.usage
    return {
        **fields,
        "tier": decision.tier.value,
        "reason": decision.reason.value,
        "mode": decision.mode.value,
        "outcome": record.outcome.value,
        "stream": record.stream,
        "attempts": len(record.attempts),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": record.cost_usd,
    }


class DecisionFilter(logging.Filter):
    """Puts the id of the request that is being served into the record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.decision_id = _current().decision_id
        return True


class Formatter(JsonFormatter):
    """One JSON object a line. Exceptions lose the messages that others wrote."""

    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "name": "logger"}
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s %(decision_id)s", rename_fields=names)
        self.converter, self.default_time_format, self.default_msec_format = time.gmtime, "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def formatException(  # noqa: N802 - logging's own name
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return "" if ei[1] is None else described(ei[1])

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler's formatter may have left the whole text here
        return super().format(record)


def described(error: BaseException) -> str:
    """Classes and places of an exception and its causes, innermost last."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < MAX_CAUSES:
        message = f": {current.message}" if _may_be_told(current) else ""
        frames = traceback.extract_tb(current.__traceback__)[-8:]
        places = "".join(f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        parts.append(f"{type(current).__module__}.{type(current).__qualname__}{message}{places}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n".join(parts)


def _may_be_told(error: BaseException) -> TypeGuard[TierwiseError]:
    """A `RequestError` may quote its request."""
    return isinstance(error, TierwiseError) and not isinstance(error, RequestError)


class _Ours(logging.StreamHandler[TextIO]):
    """So that a second `configure` finds the first one's handler."""


def configure(level: int | str = logging.INFO, stream: TextIO | None = None) -> None:
    """Log as JSON to `stream`, standard error by default. A second call replaces the first.

    For the constructors of replicas, where Ray Serve has set itself up before: its logger `ray.serve` writes files of its own,
    and the worker's standard error goes to the worker's file. Our lines are handed to nobody else, so that they appear once.
    """
    logger = logging.getLogger(ROOT)
    for old in [handler for handler in logger.handlers if isinstance(handler, _Ours)]:
        logger.removeHandler(old)
    handler = _Ours(stream or sys.stderr)
    handler.setFormatter(Formatter())
    handler.addFilter(DecisionFilter())
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
