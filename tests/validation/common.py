"""What the tests of `tierwise validate` share: deployments.yaml with one thing changed, and what is said of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from serve_app.validate import Report, check_file
from serve_app.validation import sources

FILE = Path(__file__).parents[2] / "deployments.yaml"
TIERWISE = (sys.executable, "-m", "serve_app.cli")
INGRESS, EMBEDDER, ROUTER, SMALL, LARGE, LEDGER = range(6)
DELETE = object()
VLLM = sources.vllm_keys() is not None
A = "applications.0"
D = f"{A}.deployments"


def changed(path: str, value: Any, profile: str = "local") -> dict[Any, Any]:
    """deployments.yaml with one value set, or taken out; `path` as in the messages."""
    config: dict[Any, Any] = yaml.safe_load(FILE.read_text())
    config["applications"][0]["args"]["profile"] = profile
    path = path.replace("args", "applications.0.args", 1) if path.startswith("args") else path
    target: Any = config
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    if value is DELETE:
        del target[last]
    else:
        target[last] = value
    return config


def report_of(tmp_path: Path, config: object, *, check_machine: bool = False) -> Report:
    file = tmp_path / "deployments.yaml"
    # Through JSON: no anchors for what stands twice, and every JSON text is YAML.
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return check_file(file, check_machine=check_machine)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TIERWISE, "validate", *arguments], capture_output=True, text=True, check=False, timeout=60)
