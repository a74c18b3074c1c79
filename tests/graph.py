"""A running graph for tests: `serve run` in a process of its own, on a free port, stopped with everything that it started."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from serve_app.bench.processes import free_port, stop

REPO = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Graph:
    """`url` answers; `log` is what `serve run` printed; `ray_address` is its own Ray."""

    url: str
    log: Path
    config: Path
    process: subprocess.Popen[bytes] | None
    env: dict[str, str]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120.0)

    def metric(self, name: str) -> float:
        """The sum of one metric over all label sets and nodes, as Prometheus would scrape it."""
        total = 0.0
        for target in json.loads((self.session / "prom_metrics_service_discovery.json").read_text())[0]["targets"]:
            text = httpx.get(f"http://{target}/metrics", timeout=20).text
            total += sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))
        return total

    @property
    def session(self) -> Path:
        """Ray's session folder of this graph."""
        for process in self.processes():
            if found := re.search(r"--session[-_]dir=(\S+)", _title(process)):
                return Path(found[1])
        raise RuntimeError("no process of this graph names its session folder")

    def replicas(self) -> dict[str, set[int]]:
        """Process ids of every replica, by deployment."""
        found: dict[str, set[int]] = {}
        for process in self.processes():
            if "ServeReplica:" in (title := _title(process)):
                found.setdefault(title.split(":")[-1].split(".")[0].strip(), set()).add(process.pid)
        return found

    def processes(self) -> list[psutil.Process]:
        """Everything that this graph's `serve run` started."""
        return psutil.Process(self.process.pid).children(recursive=True) if self.process is not None else list(psutil.process_iter())

    def run(self, *command: str, timeout: float = 120.0) -> str:
        """Output of a command of this environment, run against this graph."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.env,
            cwd=self.log.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
        )
        return done.stdout


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until `condition` holds; fail naming `what` was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@contextmanager
def running(folder: Path, config: dict[str, Any], *, env: dict[str, str] | None = None, timeout: float) -> Iterator[Graph]:
    """Start `serve run` on `config` (its port is replaced), wait until every part is ready, and stop all of it at the end."""
    port = free_port()
    config = {**config, "http_options": {"host": "127.0.0.1", "port": port}}
    path = folder / "deployments.yaml"
    path.write_text(yaml.safe_dump(config))
    full_env = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.deployments.proxy:middlewares",  # as `make serve` has it
        "PYTHONPATH": str(REPO),
        "RAY_AUTH_MODE": "token",  # what `serve run` switches on; the other commands must be told
        **(env or {}),
    }
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BIN / "serve"), "run", str(path)],
            env=full_env,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log, timeout)
            dashboard = re.search(r"http://[\d.]+:\d+", log.read_text(errors="replace").split("View the dashboard at", 1)[-1])
            full_env["RAY_DASHBOARD_ADDRESS"] = dashboard[0] if dashboard else ""
            yield Graph(url, log, path, process, full_env)
        finally:
            stop(process)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            body = httpx.get(f"{url}/ready", timeout=5.0).json()
            if all({**body["tiers"], **body["signals"]}.values()):
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
    raise RuntimeError(f"the graph did not become ready in {timeout:.0f} s:\n{tail}")
