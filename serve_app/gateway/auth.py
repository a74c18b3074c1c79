"""Who may ask: bearer keys from the environment, compared in constant time."""

import hashlib
import hmac
from collections.abc import Callable, Iterable

from starlette.requests import Request

from serve_app.errors import Unauthorized


def open_to_all(request: Request) -> None:
    """`auth.mode: open`."""


def bearer(keys: Iterable[str]) -> Callable[[Request], None]:
    """A check that raises `Unauthorized` unless the request carries one of `keys`. Only digests are kept."""
    digests = [_digest(key) for key in keys]

    def check(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = _digest(key.strip())
        found = [hmac.compare_digest(given, digest) for digest in digests]
        if scheme.lower() != "bearer" or not any(found):
            raise Unauthorized("Incorrect API key provided." if key else "No API key provided: send it as a bearer token.")

    return check


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
