"""The ledger's database: a URL that SQLAlchemy understands, and a driver for it. No word of the URL itself: it may hold a password."""

import os

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from serve_app.settings import Settings
from serve_app.validation.report import Report

URL = "args.ledger.url"


def check(settings: Settings, report: Report) -> None:
    """Nothing is connected to: the database may only be reached from where the application will run."""
    name = settings.ledger.url_env
    given = os.environ.get(name) if name is not None else None
    if name is not None and given is None:
        report.warning("args.ledger.url_env", f"{name} is not set here: where it is not set either, the ledger uses {URL}")
    complaint = _complaint(settings.ledger.url if given is None else given)
    if complaint is not None:
        report.problem(URL if given is None else f"args.ledger.url_env: {name}", complaint)


def _complaint(text: str) -> str | None:
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):  # ValueError: its port is no number
        return "is no URL that SQLAlchemy understands, such as sqlite:///tierwise.db or postgresql+psycopg://user:password@host/name"
    try:
        dialect = url.get_dialect()
    except NoSuchModuleError:
        return f"names {url.drivername}, which SQLAlchemy does not know"
    if dialect.is_async:
        return f"names {url.drivername}, which is asynchronous: the ledger writes from a thread"
    try:
        dialect.import_dbapi()
    except ImportError:
        hint = ": pip install 'tierwise[postgres]', and write postgresql+psycopg://" if url.get_backend_name() == "postgresql" else ""
        return f"needs the driver {dialect.driver}, which is not installed here{hint}"
    return None
