"""The cost exporter as Prometheus and a user see it: its page, its names, its bounds, its command."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from serve_app import cli
from serve_app.errors import SettingsError
from serve_app.observe import exporter_scrape
from serve_app.observe.exporter import EXPORTED, Exporter, Serving
from serve_app.validate import check_file
from tests.graph import REPO
from tests.observe.exporter_pages import HOUR, NOON, counters, loads, settings, text


class Node:
    """One address, whose page a test changes."""

    def __init__(self) -> None:
        self.body = b""
        self.before: Callable[[], object] = lambda: None

    def shows(self, *lines: str, instance: str = "g6e.12xlarge") -> None:
        self.body = text(instance, "LargeTier", gpus=4, cpus=48, more=lines).encode()


@pytest.fixture
def node() -> Iterator[tuple[str, Node]]:
    shown = Node()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.before()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(shown.body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics", shown
    server.shutdown()
    server.server_close()
    thread.join()


class Clock:
    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> float:
        return self.time


def figures(exporter: Exporter) -> dict[str, float]:
    return {" ".join([f["name"].removeprefix("tierwise_cost_"), *f["labels"].values()]): f["value"] for f in exporter.figures()}


def test_an_hour_of_traffic_in_both_views(node: tuple[str, Node]) -> None:
    url, shown = node
    clock = Clock()
    exporter = Exporter(settings(targets=[url]), now=clock)
    shown.shows(*counters(), *loads(large=4))
    exporter.poll()
    clock.time += HOUR
    shown.shows(*counters(requests=500, small=300_000, large=100_000), *loads(large=4))
    exporter.poll()
    seen = figures(exporter)
    assert seen["today_usd tokens"] == pytest.approx(0.3 + 0.8)
    assert seen["saved_today_usd tokens"] == pytest.approx(3.2 - 1.1)
    assert seen["per_1000_requests_usd tokens"] == pytest.approx(2.2)
    assert seen["per_million_tokens_usd tokens small"] == pytest.approx(1.0)
    assert seen["spend_usd_per_hour tokens"] == pytest.approx(1.1)
    assert seen["spend_usd_per_hour fleet"] == seen["today_usd fleet"] == pytest.approx(10.493)
    assert seen["per_million_tokens_usd fleet large"] == pytest.approx(104.93)
    assert (seen["nodes g6e.12xlarge"], seen["nodes_unpriced"], seen["targets up"], seen["targets down"]) == (1, 0, 1, 0)


def test_prometheus_gets_every_name_with_its_type(node: tuple[str, Node]) -> None:
    url, shown = node
    exporter = Exporter(settings(targets=[url]))
    shown.shows('ray_vllm_generation_tokens_total{model_name="tiny"} 0', *counters())
    exporter.poll()
    shown.shows('ray_vllm_generation_tokens_total{model_name="tiny"} 9', *counters(requests=1, small=1, large=1))
    exporter.poll()
    registry = CollectorRegistry()
    registry.register(exporter)
    page = generate_latest(registry).decode()
    typed = dict(line.split()[2:4] for line in page.splitlines() if line.startswith("# TYPE"))
    assert typed == {name: "counter" if name.endswith("_total") else "gauge" for name in EXPORTED}
    assert 'tierwise_cost_engine_tokens_total{model="tiny"} 9.0' in page


def test_a_machine_without_a_price_is_told_and_charged_nothing(node: tuple[str, Node]) -> None:
    url, shown = node
    shown.shows(instance="p9.huge")
    exporter = Exporter(settings(targets=[url]))
    exporter.poll()
    assert (figures(exporter)["nodes p9.huge"], figures(exporter)["nodes_unpriced"], figures(exporter)["spend_usd_per_hour fleet"]) == (
        1,
        1,
        0,
    )


def test_the_addresses_are_those_of_rays_file(tmp_path: Path) -> None:
    file = tmp_path / "discovery.json"
    file.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": ["10.0.0.1:8080", "10.0.0.2:8080"]}]))
    assert exporter_scrape.targets(settings(discovery=str(file)).exporter) == [
        "http://10.0.0.1:8080/metrics",
        "http://10.0.0.2:8080/metrics",
    ]


@pytest.mark.parametrize("content", [None, "", "{", "7"], ids=["no file", "empty", "torn", "no list"])
def test_without_rays_file_nothing_is_read_and_the_next_reading_has_its_turn(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "discovery.json"
    if content is not None:
        file.write_text(content)
    exporter = Exporter(settings(discovery=str(file)))
    exporter.poll()
    assert (figures(exporter)["targets up"], figures(exporter)["targets down"]) == (0, 0)


def test_a_page_that_is_too_slow_too_large_or_no_page_is_no_reading(node: tuple[str, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    url, shown = node
    released = threading.Event()
    shown.before = lambda: released.wait(5)
    assert exporter_scrape.read([url], 0.2, NOON).pages == {url: None}
    released.set()
    shown.body = b'ray_resources{Name="CPU 1\n'
    assert exporter_scrape.read([url], 2.0, NOON).pages == {url: None}
    shown.shows()
    assert exporter_scrape.read([url], 2.0, NOON).pages[url]
    monkeypatch.setattr(exporter_scrape, "MAX_BYTES", 100)
    assert exporter_scrape.read([url, "http://127.0.0.1:1/metrics", "nonsense"], 2.0, NOON).pages == dict.fromkeys(
        [url, "http://127.0.0.1:1/metrics", "nonsense"]
    )


def test_it_answers_on_its_port_and_frees_it(node: tuple[str, Node], tmp_path: Path) -> None:
    url, shown = node
    shown.shows()
    serving = Serving(settings(targets=[url], port=0, state=str(tmp_path / "state.json"), every_s=0.05))
    try:
        page = httpx.get(f"http://127.0.0.1:{serving.port}/metrics", trust_env=False).text
        assert "tierwise_cost_spend_usd_per_hour" in page
        assert serving.alive()
    finally:
        serving.close()
    assert not serving.alive()
    assert json.loads((tmp_path / "state.json").read_text())["day"]
    Serving(settings(targets=[url], port=serving.port, state="")).close()


def test_a_state_that_is_not_ours_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"args\.exporter\.state: .*not the state"):
        Exporter(settings(state=str(tmp_path / "state.json")))


def test_the_command_reads_once_and_leaves_the_state_alone(node: tuple[str, Node], tmp_path: Path) -> None:
    url, shown = node
    shown.shows()
    config = tmp_path / "deployments.yaml"
    config.write_text(
        f"applications: [{{import_path: 'serve_app.app:build', args: {{profile: g6e, exporter: {{state: '{tmp_path}/state.json'}}}}}}]"
    )
    command = ["cost-exporter", "--config", str(config), "--target", url, "--once"]
    done = CliRunner().invoke(cli.app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    nodes = [figure for figure in json.loads(done.stdout) if figure["name"] == "tierwise_cost_nodes"]
    assert nodes == [{"name": "tierwise_cost_nodes", "labels": {"instance": "g6e.12xlarge"}, "value": 1.0}]
    assert not (tmp_path / "state.json").exists()
    assert "tierwise_cost_nodes " in CliRunner().invoke(cli.app, command).stdout


@pytest.mark.parametrize(("more", "says"), [(["--config", "none.yaml"], "none.yaml"), (["--port", "70000"], "args.exporter.port")])
def test_a_mistake_is_one_line(more: list[str], says: str) -> None:
    done = CliRunner().invoke(cli.app, ["cost-exporter", "--config", str(REPO / "deployments.yaml"), *more, "--once"])
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_may_run_the_exporter_beside_the_graph(tmp_path: Path) -> None:
    text = (REPO / "deployments.yaml").read_text()
    own = (
        "  - {name: cost-exporter, import_path: 'serve_app.deployments.cost_exporter:build', route_prefix: null, args: {profile: local}}\n"
    )
    (tmp_path / "deployments.yaml").write_text(text + own)
    assert not check_file(tmp_path / "deployments.yaml", check_machine=False).problems
    (tmp_path / "deployments.yaml").write_text(text + own.replace("cost_exporter:", "another:"))
    assert any("must hold tierwise alone" in problem for problem in check_file(tmp_path / "deployments.yaml", check_machine=False).problems)
