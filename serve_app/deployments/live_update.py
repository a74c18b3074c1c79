"""Change a live setting of a running application: the one way for every command that does.

Serve replaces a `user_config` whole, and an application whole: the running config is read from Serve's API, `Ingress`'s `user_config`
is changed in it and nothing else, and all of it is put back. No process restarts: see `settings.Live`.
"""

import difflib
import json
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from serve_app.domain import Json
from serve_app.errors import RequestError, SettingsError, TierwiseError
from serve_app.settings import parse, parse_live

PATH = "/api/serve/applications/"
INGRESS = "Ingress"
OURS = "serve_app.app:build"
LIVING = ("RUNNING", "UPDATING")
TIMEOUT_S = 30.0
KEPT = ("proxy_location", "http_options", "grpc_options", "target_capacity")  # beside the applications, in what Serve tells and takes


@dataclass(frozen=True, slots=True)
class Change:
    """What would be put: `config` is all of it. `before` and `after` are `Ingress`'s `user_config`."""

    application: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    config: Json

    def diff(self) -> str:
        """For a person who is asked."""
        before, after = _yaml(self.before).splitlines(), _yaml(self.after).splitlines()
        return "\n".join(difflib.unified_diff(before, after, "running", "changed", lineterm="", n=99))

    def lines(self) -> str:
        """What to write into deployments.yaml, so that the next deployment does not undo it."""
        config = "\n".join(f"          {line}" for line in _yaml(self.after).splitlines())
        return f"      - name: {INGRESS}\n        user_config:\n{config}"


class ServeApi:
    """Ray's dashboard. `token` is the cluster's, where it asks for one."""

    def __init__(self, address: str, token: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self._address = address.rstrip("/")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if not _is_address(address):
            raise RequestError(f"{address}: not an http address")
        self._client = httpx.Client(base_url=self._address, headers=headers, timeout=TIMEOUT_S, transport=transport)

    def details(self) -> Json:
        """What Serve says of all applications. Raises `TierwiseError` in one line."""
        try:
            found = self._ask("GET").json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("applications"), dict):
            raise TierwiseError(f"{self._address}: answered something else: is this Ray's dashboard?")
        return found

    def put(self, config: Json) -> None:
        """Raises `TierwiseError` in one line when Serve does not take it."""
        self._ask("PUT", config)

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, body: Json | None = None) -> httpx.Response:
        try:
            answer = self._client.request(method, PATH, json=body)
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            status, hint = error.response.status_code, ""
            if status in (401, 403):
                hint = ": it asks for Ray's token, see RAY_AUTH_TOKEN"
            raise TierwiseError(f"{self._address}: answered {status}{hint}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TierwiseError(f"{self._address}: {type(error).__name__}: is this Ray's dashboard, and does Serve run?") from None
        return answer


def _is_address(address: str) -> bool:
    try:
        parsed = urlsplit(address)
        return parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        return False


def token(environ: Mapping[str, str] = os.environ) -> str | None:
    """Ray's token, where Ray's own commands look for it; None without one."""
    if given := environ.get("RAY_AUTH_TOKEN"):
        return given.strip()
    file = Path(environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return file.read_text(encoding="utf-8").strip() or None if file.is_file() else None


def change(details: Json, values: Mapping[str, Any], application: str | None = None) -> Change:
    """`values` laid over the running `user_config` of `application`, or of the only one of ours.

    Raises `TierwiseError` when there is none, or when putting everything back would lose something, and `SettingsError` for values
    that the application would refuse.
    """
    configs = {name: _config_of(name, one) for name, one in details["applications"].items()}
    name = application or _only_one(configs)
    if name not in configs:
        raise TierwiseError(f"Serve runs no application {name!r}; it runs: {', '.join(configs) or 'none'}")
    ours = configs[name] = deepcopy(configs[name])
    deployments = ours.setdefault("deployments", [])
    ingress = next((one for one in deployments if one.get("name") == INGRESS), None)
    if ingress is None:
        deployments.append(ingress := {"name": INGRESS})
    before = ingress.get("user_config") or {}
    ingress["user_config"] = {**before, **values}
    _check(ours, ingress["user_config"])
    whole = {part: details[part] for part in KEPT if details.get(part) is not None}
    return Change(name, before, ingress["user_config"], {**whole, "applications": list(configs.values())})


def apply(api: ServeApi, wanted: Change) -> None:
    """Put it, unless what runs has changed since it was read. Raises `TierwiseError`."""
    values = {name: value for name, value in wanted.after.items() if wanted.before.get(name) != value}
    if change(api.details(), values, wanted.application).config != wanted.config:
        raise TierwiseError("the running application has changed meanwhile: nothing was put, look at it again")
    api.put(wanted.config)


@dataclass(frozen=True, slots=True)
class Done:
    """`written` is false when there was nothing to change, or the answer was no."""

    change: Change
    written: bool


def put(
    api: ServeApi,
    values: Mapping[str, Any],
    application: str | None,
    *,
    say: Callable[[str], None],
    sure: Callable[[str], bool],
    first: Callable[[], object] = lambda: None,
) -> Done:
    """Show what would change, ask, do what must be done `first`, and put it. Raises `TierwiseError`."""
    wanted = change(api.details(), values, application)
    say(wanted.diff() or "this is in force already")
    if not wanted.diff() or not sure(f"Put this into the running application {wanted.application!r}?"):
        return Done(wanted, written=False)
    first()
    apply(api, wanted)
    return Done(wanted, written=True)


def replicas(details: Json, application: str) -> int:
    """How many of the ingress Serve runs, by its own word; 0 where it does not say."""
    deployment = (details["applications"].get(application, {}).get("deployments") or {}).get(INGRESS) or {}
    return sum(one.get("state") in LIVING for one in deployment.get("replicas") or [])


def _config_of(name: str, application: Json) -> Json:
    config = application.get("deployed_app_config")
    if not isinstance(config, dict):
        raise TierwiseError(f"the application {name!r} was not deployed from a file: putting everything back would end it")
    return {**config, "name": config.get("name") or name}


def _only_one(configs: Mapping[str, Json]) -> str:
    ours = [name for name, config in configs.items() if config.get("import_path") == OURS]
    if len(ours) != 1:
        raise TierwiseError(f"Serve runs {len(ours)} applications of tierwise: name one of {', '.join(configs) or 'none'} by --app")
    return ours[0]


def _check(application: Json, user_config: Json) -> None:
    """The running application only logs what it refuses: find it out before."""
    if application.get("import_path") == OURS:
        parse_live(parse(application.get("args") or {}).live, user_config)
    elif not isinstance(user_config, dict):
        raise SettingsError(["user_config: must be a mapping"])


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False)
