"""What the command line asks of a running endpoint."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from serve_app.domain import Json, Tier
from serve_app.errors import RequestError, TierwiseError
from serve_app.evaluate import golden as golden_set
from serve_app.evaluate import labelled

POLL_S = 0.5
MAX_PORT = 65535
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to connect, not to bind
Progress = Callable[[list[Any], str], Iterator[Any]]


def url_of(config: Path) -> str:
    """The address that a deployments.yaml makes Serve listen on. Raises `RequestError` when it cannot be read."""
    try:
        options = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("http_options") or {}
        host, port = options.get("host", "127.0.0.1"), options.get("port", 8000)
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError):
        raise RequestError(f"{config}: cannot be read as a deployments file") from None
    host = ANY.get(host, host) if isinstance(host, str) else host
    return f"http://{f'[{host}]' if ':' in str(host) else host}:{port}"


def status(url: str, api_key: str = "") -> Json:
    """`GET /status`; a key that is no admin's gets less. Raises `TierwiseError` in one line when nobody, or somebody else, answers."""
    with connect(url, api_key) as client:
        body = ask(client, "GET", "/status")
    ours = {"profile", "threshold", "calibration", "tiers"} <= body.keys() or body.keys() == {"version", "tiers"}
    if not (ours and isinstance(body.get("calibration", ""), str) and _of_objects(body["tiers"])):
        raise _foreign(f"{url}/status")
    return body


def _of_objects(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def golden(url: str, api_key: str, progress: Progress, limit: int | None = None) -> golden_set.Report:
    """Route the golden prompts, or the first `limit`, through an endpoint's `/route`. Raises `TierwiseError` when it does not answer."""
    rows = labelled.split(labelled.packaged())[1][:limit]
    with connect(url, api_key) as client:
        routed = {row.id: _route(client, row.prompt) for row in progress(rows, "routing")}
    return golden_set.compare(rows, routed)


def _route(client: httpx.Client, prompt: str) -> golden_set.Routed:
    body = ask(client, "POST", "/route", {"prompt": prompt})
    try:
        score = body["complexity_score"]
        return golden_set.Routed(Tier(body["tier_name"]), None if score is None else float(score), str(body["reason"]))
    except (ValueError, TypeError, KeyError):
        raise _foreign(f"{client.base_url}route") from None


def connect(url: str, api_key: str) -> httpx.Client:
    """Raises `RequestError` for what is no address, or a key that no header can hold."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise RequestError("the API key holds characters that no key has")
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        parsed = httpx.URL(url)
        if parsed.scheme in ("http", "https") and parsed.host and (parsed.port or 0) <= MAX_PORT:
            return httpx.Client(base_url=url, headers=headers, timeout=60.0)
    except (httpx.InvalidURL, ValueError):
        pass
    raise RequestError(f"{url}: not an http address")


def ask(client: httpx.Client, method: str, path: str, body: Json | None = None) -> Json:
    """The answer's JSON object; every way in which it is none is a `TierwiseError` of one line."""
    try:
        answer = client.request(method, path, json=body)
        answer.raise_for_status()
        found = answer.json()
    except httpx.HTTPStatusError as error:
        raise TierwiseError(f"{error.request.url}: answered {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise TierwiseError(f"{error.request.url}: {type(error).__name__}: is tierwise running?") from None
    except httpx.InvalidURL:
        raise RequestError(f"{client.base_url}: not an http address") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _foreign(str(answer.request.url))
    return found


def _foreign(url: str) -> TierwiseError:
    return TierwiseError(f"{url}: answered something else: is this tierwise?")


def wait_ready(url: str, timeout_s: float, say: Callable[[str], None]) -> float:
    """Wait until `/ready` is 200, telling what is there so far; seconds waited.

    Raises `RequestError` at once for what is no address, and `TierwiseError` after `timeout_s`.
    """
    with connect(url, "") as client:
        started, told = time.monotonic(), ""
        while (waited := time.monotonic() - started) < timeout_s:
            state = _readiness(client)
            if state == "ready":
                return waited
            if state != told:
                say(f"{waited:4.0f} s  {state}")
                told = state
            time.sleep(POLL_S)
    raise TierwiseError(f"{url}: not ready after {timeout_s:.0f} s ({told})")


def _readiness(client: httpx.Client) -> str:
    try:
        body = client.get("/ready", timeout=5.0).json()
        waiting = [name for name, ready in {**body["signals"], **body["tiers"]}.items() if not ready]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):  # nobody yet, or Serve without the application
        return "starting Ray and Serve"
    return f"waiting for {', '.join(waiting)}" if waiting else "ready"
