"""The web page at `/`: plain files of the package, read once, under a policy that lets them reach nothing but this endpoint."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import NotFound
from serve_app.gateway.errors import SCHEMA_HEADER

INDEX = "index.html"
MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing inline, nothing from elsewhere, no frame around it; with trusted types, text cannot become markup even by a mistake of ours.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    **SCHEMA_HEADER,
    "content-security-policy": POLICY,
    "cache-control": "no-cache",  # kept, but asked for again: an upgrade shows at once, and costs a 304 where there was none
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    media: str
    etag: str


def assets() -> dict[str, Asset]:
    """Every file of the page by its name; what is not in here cannot be asked for."""
    folder = files("serve_app.gateway").joinpath("page")
    found = {item.name: item.read_bytes() for item in folder.iterdir() if _suffix(item.name) in MEDIA}
    return {name: Asset(content, MEDIA[_suffix(name)], f'"{hashlib.sha256(content).hexdigest()[:32]}"') for name, content in found.items()}


def install(app: FastAPI) -> None:
    """Anybody may load the page: it holds no data, and asks for a key where the endpoint does."""
    known = assets()

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        return _answer(known[INDEX], request)

    @app.api_route("/page/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        if name not in known or name == INDEX:
            raise NotFound("The page has no such file.", code="not_found")
        return _answer(known[name], request)


def _answer(asset: Asset, request: Request) -> Response:
    headers = {**HEADERS, "etag": asset.etag}
    if _has(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media, headers=headers)


def _has(listed: str, etag: str) -> bool:
    """Whether the client's copy is this one. A proxy that compressed it has made its tag a weak one."""
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in listed.split(","))


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2]}"
