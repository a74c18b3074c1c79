"""One live setting is changed in what Serve runs, and all the rest is put back as it was."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.deployments import live_update
from serve_app.deployments.live_update import ServeApi, apply, change
from serve_app.errors import RequestError, SettingsError, TierwiseError

OTHER = {"name": "other", "import_path": "mine:app", "route_prefix": "/other", "args": {"x": [1, 2]}}


def ours(**changes: Any) -> dict[str, Any]:
    deployments = [
        {"name": "Ingress", "autoscaling_config": {"min_replicas": 2}, "user_config": {"threshold": "auto", "mode": "shadow"}},
        {"name": "Ledger", "num_replicas": 1},
    ]
    made = {"name": "tierwise", "import_path": "serve_app.app:build", "route_prefix": "/", "args": {"profile": "local"}}
    return {**made, "deployments": deployments, **changes}


def details(*applications: dict[str, Any]) -> dict[str, Any]:
    configs = applications or (ours(), OTHER)
    told = {"proxy_location": "HeadOnly", "http_options": {"port": 8000}, "grpc_options": {"port": 9000}, "target_capacity": 50.0}
    apps = {one["name"]: {"name": one["name"], "status": "RUNNING", "deployed_app_config": one} for one in configs}
    return {**told, "controller_info": {"pid": 1}, "applications": apps}


class Serve:
    """Ray's dashboard: tells what runs, takes what is put. What was put runs."""

    def __init__(self, told: dict[str, Any], *, token: str | None = None) -> None:
        self.told, self.token = told, token
        self.put: list[dict[str, Any]] = []
        self.before_details = lambda: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/serve/applications/"
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return httpx.Response(401)
        if request.method == "GET":
            self.before_details()
            return httpx.Response(200, json=self.told)
        config = json.loads(request.content)
        self.put.append(config)
        self.told = {**self.told, "applications": details(*config["applications"])["applications"]}
        return httpx.Response(200)

    def api(self, token: str | None = None) -> ServeApi:
        return ServeApi("http://ray:8265/", token, transport=httpx.MockTransport(self))


def test_only_the_threshold_changes_and_everything_is_put_back() -> None:
    serve = Serve(details())
    wanted = change(serve.api().details(), {"threshold": 0.7})
    apply(serve.api(), wanted)
    (config,) = serve.put
    expected = ours()
    expected["deployments"][0]["user_config"] = {"threshold": 0.7, "mode": "shadow"}
    assert config["applications"] == [expected, OTHER]
    assert {name: value for name, value in config.items() if name != "applications"} == {
        "proxy_location": "HeadOnly",
        "http_options": {"port": 8000},
        "grpc_options": {"port": 9000},
        "target_capacity": 50.0,
    }


def test_the_diff_and_the_lines_to_commit_show_the_change() -> None:
    wanted = change(details(), {"threshold": 0.7})
    assert [line for line in wanted.diff().splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-threshold: auto",
        "+threshold: 0.7",
    ]
    assert yaml.safe_load(wanted.lines()) == [{"name": "Ingress", "user_config": {"threshold": 0.7, "mode": "shadow"}}]
    assert change(details(), {"threshold": "auto"}).diff() == ""


@pytest.mark.parametrize("deployments", [None, [], [{"name": "Ledger", "num_replicas": 1}], [{"name": "Ingress"}]])
def test_an_ingress_without_a_user_config_gets_one(deployments: Any) -> None:
    application = ours(deployments=deployments)
    if deployments is None:
        del application["deployments"]
    (put,) = change(details(application), {"threshold": 0.7}).config["applications"]
    assert [one for one in put["deployments"] if one["name"] == "Ingress"] == [{"name": "Ingress", "user_config": {"threshold": 0.7}}]


def test_what_changed_meanwhile_is_not_overwritten() -> None:
    serve = Serve(details())
    wanted = change(serve.api().details(), {"threshold": 0.7})
    serve.told = details(ours(args={"profile": "local", "limits": {"max_n": 2}}), OTHER)
    with pytest.raises(TierwiseError, match="changed meanwhile"):
        apply(serve.api(), wanted)
    assert serve.put == []


def test_a_value_that_the_application_would_refuse_is_refused_before() -> None:
    with pytest.raises(SettingsError, match=r"user_config.threshold"):
        change(details(), {"threshold": 1.5})


def test_an_application_that_was_not_deployed_from_a_file_is_not_ended() -> None:
    told = details()
    told["applications"]["other"]["deployed_app_config"] = None
    with pytest.raises(TierwiseError, match="'other' was not deployed from a file"):
        change(told, {"threshold": 0.7})


def test_the_application_must_be_named_where_it_is_not_clear() -> None:
    two = details(ours(), ours(name="second"))
    with pytest.raises(TierwiseError, match="tierwise, second by --app"):
        change(two, {"threshold": 0.7})
    assert change(two, {"threshold": 0.7}, "second").application == "second"
    with pytest.raises(TierwiseError, match="no application 'third'"):
        change(two, {"threshold": 0.7}, "third")
    with pytest.raises(TierwiseError, match="0 applications"):
        change(details(OTHER), {"threshold": 0.7})


def test_the_clusters_token_is_shown_and_found_where_ray_looks(tmp_path: Path) -> None:
    serve = Serve(details(), token="t0")
    assert "applications" in serve.api("t0").details()
    with pytest.raises(TierwiseError, match="answered 401: it asks for Ray's token"):
        serve.api().details()
    (tmp_path / "token").write_text("t1\n")
    assert live_update.token({"RAY_AUTH_TOKEN": " t0 ", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}) == "t0"
    assert live_update.token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}) == "t1"
    assert live_update.token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}) is None


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json=[]), httpx.Response(500)])
def test_another_server_is_told_in_one_line(answer: httpx.Response) -> None:
    api = ServeApi("http://ray:8265", transport=httpx.MockTransport(lambda _: answer))
    with pytest.raises(TierwiseError) as raised:
        api.details()
    assert "\n" not in raised.value.message


def test_what_is_no_address_is_refused() -> None:
    for address in ("http://[", "ray:8265", "http://ray:99999", ""):
        with pytest.raises(RequestError, match="not an http address"):
            ServeApi(address)
    with pytest.raises(TierwiseError, match="does Serve run"):
        ServeApi("http://127.0.0.1:1").details()


@pytest.mark.parametrize(("said", "written"), [("y\n", True), ("n\n", False)])
def test_the_command_shows_the_diff_and_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, written: bool) -> None:
    serve = Serve(details())
    monkeypatch.setattr(live_update, "ServeApi", lambda *_: serve.api())
    rows = tmp_path / "rows.jsonl"
    row = {"score": 0.4, "tier": "small", "reason": "score_below", "prompt_tokens": 1, "completion_tokens": 1}
    rows.write_text(json.dumps({**row, "cost_usd": 1.0, "all_large_usd": 2.0, "threshold": 0.65}))
    config = str(Path(__file__).parents[2] / "deployments.yaml")
    command = ["replay", "--data", str(rows), "--config", config, "--write", "0.33"]
    done = CliRunner().invoke(app, command, input=said)
    assert done.exit_code == 0, done.output
    assert "+threshold: 0.33" in done.output
    assert bool(serve.put) is written
    assert ("in deployments.yaml" in done.output) is written
    assert [line for line in done.output.splitlines() if line.strip().startswith("0.33 ")], "what it would give is shown first"
