"""What the command line asks of a running endpoint."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import yaml

from serve_app.domain import Json
from serve_app.errors import RequestError, TierwiseError

POLL_S = 0.5


def url_of(config: Path) -> str:
    """The address that a deployments.yaml makes Serve listen on. Raises `RequestError` when it cannot be read."""
    try:
        options = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("http_options") or {}
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        raise RequestError(f"{config}: cannot be read as a deployments file") from None
    host = options.get("host", "127.0.0.1")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{options.get('port', 8000)}"  # noqa: S104 - where to connect, not to bind


def status(url: str, api_key: str = "") -> Json:
    """`GET /status`. Raises `TierwiseError` in one line when nobody answers."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(f"{url}/status", headers=headers, timeout=10.0)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise TierwiseError(f"{url}: answered {error.response.status_code}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TierwiseError(f"{url}: {type(error).__name__}: is tierwise running?") from None
    body: Json = answer.json()
    return body


def wait_ready(url: str, timeout_s: float, say: Callable[[str], None]) -> float:
    """Wait until `/ready` is 200, telling what is there so far; seconds waited. Raises `TierwiseError` after `timeout_s`."""
    started, told = time.monotonic(), ""
    while (waited := time.monotonic() - started) < timeout_s:
        state = _readiness(url)
        if state == "ready":
            return waited
        if state != told:
            say(f"{waited:4.0f} s  {state}")
            told = state
        time.sleep(POLL_S)
    raise TierwiseError(f"{url}: not ready after {timeout_s:.0f} s ({told})")


def _readiness(url: str) -> str:
    try:
        answer = httpx.get(f"{url}/ready", timeout=5.0)
        body = answer.json()
        waiting = [name for name, ready in {**body["signals"], **body["tiers"]}.items() if not ready]
    except (httpx.HTTPError, ValueError, KeyError):
        return "starting Ray and Serve"
    return f"waiting for {', '.join(waiting)}" if waiting else "ready"
