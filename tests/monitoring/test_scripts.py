"""`make monitoring` and the packages of `make test` where something is missing: one line, and no harm."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.graph import REPO
from tests.monitoring.prometheus import MONITORING, needs_prometheus


def run(script: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(script)], env={**os.environ, **env}, cwd=REPO, capture_output=True, text=True, timeout=30, check=False)


def stubs(folder: Path, **commands: str) -> str:
    """A PATH on which these commands are what a test says."""
    for name, body in commands.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@needs_prometheus
@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"DISCOVERY": "/nowhere.json"}, "is `make serve` running?"),
        ({"DISCOVERY": "/dev/null", "CONFIG": "/nowhere.yaml"}, "no /nowhere.yaml"),
    ],
)
def test_monitoring_without_a_graph_is_one_line(env: dict[str, str], says: str) -> None:
    done = run(MONITORING / "run.sh", **env)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_missing_packages_are_one_line_where_they_cannot_be_installed(tmp_path: Path) -> None:
    path = stubs(tmp_path, **{"dpkg-query": "exit 1", "id": "echo 1000", "sudo": "exit 1", "apt-get": "exit 9"})
    done = run(REPO / "tests" / "packages.sh", PATH=path)
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith("packages: not installed: chromium postgresql prometheus; their tests are skipped")


def test_only_missing_packages_are_installed_and_a_failure_is_one_more_line(tmp_path: Path) -> None:
    known = "case $4 in prometheus) exit 1;; *) echo install ok installed;; esac"
    path = stubs(tmp_path, **{"dpkg-query": known, "id": "echo 0", "apt-get": f"echo $* >> {tmp_path}/calls; exit 9"})
    done = run(REPO / "tests" / "packages.sh", PATH=path)
    assert done.returncode == 0
    assert [line.split("prometheus")[0] for line in done.stdout.splitlines()] == ["packages: installing ", "packages: could not install "]
    assert all("chromium" not in call for call in (tmp_path / "calls").read_text().splitlines())


def test_with_every_package_installed_nothing_is_said(tmp_path: Path) -> None:
    path = stubs(tmp_path, **{"dpkg-query": "echo install ok installed", "apt-get": "exit 9"})
    done = run(REPO / "tests" / "packages.sh", PATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
