"""A real Prometheus beside a running graph, by the same script as `make monitoring`, on ports of its own and with short rules."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.graph import BIN, REPO, Graph, free_port, wait_for

MONITORING = REPO / "cluster" / "monitoring"
WINDOW = "15s"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="prometheus is not installed (tests/apt.txt)"
)


@dataclass(frozen=True)
class Prometheus:
    url: str
    log: Path

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an instant query; a query that does not parse fails the test."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=20, trust_env=False).json()
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expr: str) -> float:
        return sum(float(sample["value"][1]) for sample in self.query(expr))

    def has_data(self, expr: str, since: float) -> bool:
        """Whether a graph from `since` (Unix time) to now shows a point. NaN (nothing divided by nothing) is none."""
        params: dict[str, str | float] = {"query": expr.replace("$__rate_interval", WINDOW), "start": since, "end": time.time(), "step": 1}
        answer = httpx.get(f"{self.url}/api/v1/query_range", params=params, timeout=20, trust_env=False).json()
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        return any(value != "NaN" for series in answer["data"]["result"] for _, value in series["values"])

    def firing(self) -> set[str]:
        alerts = httpx.get(f"{self.url}/api/v1/alerts", timeout=20, trust_env=False).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def short_rules(folder: Path) -> Path:
    """The committed rules with three seconds for each minute, evaluated each second."""
    folder.mkdir()
    for file in (MONITORING / "rules").iterdir():
        text = re.sub(r"interval: \d+m", "interval: 1s", file.read_text())
        (folder / file.name).write_text(re.sub(r"(\[|for: )(\d+)m", lambda found: f"{found[1]}{3 * int(found[2])}s", text))
    return folder


@contextmanager
def watching(graph: Graph, folder: Path) -> Iterator[Prometheus]:
    """Scrape `graph` each second until the end. Its one machine costs $3.60 an hour."""
    args = yaml.safe_load(graph.config.read_text())["applications"][0]["args"]
    args |= {"exporter": {"every_s": 1.0}, "fleet": [{"instance": "local", "cpus": 2, "memory_gib": 7, "usd_per_hour": 3.6}]}
    config, log = folder / "exporter.yaml", folder / "monitoring.log"
    config.write_text(yaml.safe_dump({"applications": [{"import_path": "serve_app.app:build", "args": args}]}))
    port, exporter = free_port(), free_port()
    env = {
        **os.environ,
        "PORT": str(port),
        "EXPORTER_PORT": str(exporter),
        "CONFIG": str(config),
        "INTERVAL": "1s",
        "BIN": str(BIN),
        "DISCOVERY": str(graph.session / "prom_metrics_service_discovery.json"),
        "RULES": str(short_rules(folder / "rules")),
    }
    with log.open("wb") as output:
        process = subprocess.Popen([str(MONITORING / "run.sh")], env=env, cwd=REPO, stdout=output, stderr=subprocess.STDOUT)
    prometheus = Prometheus(f"http://127.0.0.1:{port}", log)
    try:
        wait_for(lambda: _up(prometheus, process), 40, f"Prometheus to scrape, see {log}")
        yield prometheus
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _up(prometheus: Prometheus, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, prometheus.log.read_text()
    try:
        return prometheus.value('up{job="ray"}') >= 1 and prometheus.value('up{job="tierwise-cost"}') == 1
    except (httpx.HTTPError, ValueError):
        return False
