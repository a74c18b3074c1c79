"""How soon /health and /status answer, measured from a process of its own: `python -m tests.chaos.prober URL SECONDS`."""

import http.client
import json
import subprocess
import sys
import time
from urllib.parse import urlsplit

from tests.chaos.traffic import quantile
from tests.graph import REPO

PATHS = ("/health", "/status")
EVERY_S = 0.1


def probe(url: str, seconds: float) -> dict[str, list[float]]:
    """Seconds of each answer, by path; one that fails counts as the second that a client would wait for it."""
    address = urlsplit(url).netloc
    taken: dict[str, list[float]] = {path: [] for path in PATHS}
    end = time.monotonic() + seconds
    connection = http.client.HTTPConnection(address, timeout=10)
    while time.monotonic() < end:
        for path in PATHS:
            started = time.monotonic()
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                good = answer.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()
                good = False
            took = time.monotonic() - started
            taken[path].append(took if good else max(took, 1.0))
            time.sleep(EVERY_S)
    return taken


def start(url: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.chaos.prober", url, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)


def result(process: subprocess.Popen[str]) -> dict[str, float]:
    """p50 and p99 in milliseconds of each path."""
    output, _ = process.communicate(timeout=60)
    told = {}
    for path, taken in json.loads(output).items():
        ordered = sorted(taken)
        told[f"{path[1:]}_p50_ms"] = round(quantile(ordered, 0.5) * 1000, 1)
        told[f"{path[1:]}_p99_ms"] = round(quantile(ordered, 0.99) * 1000, 1)
    return told


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], float(sys.argv[2]))))
