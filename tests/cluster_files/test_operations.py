"""docs/operations.md: its figures are computed, and what it names is there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from serve_app.observe import metrics
from serve_app.settings import Settings
from tests.cluster_files import aws, cost
from tests.cluster_files.placement import Nodes, cluster_config
from tests.cluster_files.sync import ROOT

TEXT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
GUIDE = TEXT[: TEXT.index("\n## Keys and limits")]
TABLE = GUIDE[GUIDE.index("\n## Troubleshooting") :]


def commands() -> str:
    """Every block of shell, one after the other."""
    return "\n".join(re.findall(r"^ *```bash\n(.*?)^ *```$", GUIDE, re.MULTILINE | re.DOTALL))


def test_the_cost_of_the_fleet_is_what_the_files_say() -> None:
    assert cost.table() in TEXT, "run `python -m tests.cluster_files.cost`"
    smallest = re.search(r"\*\*an hour\*\* \| \| \| \*\*(\$[\d.]+)\*\*", cost.table())
    assert smallest is not None
    assert f"{smallest[1]} an hour at its smallest" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_quotas_are_the_vcpus_of_the_fleet() -> None:
    steady = [node for node in aws.workers() if "spot" not in node.name]
    spot = [node for node in aws.workers() if "spot" in node.name]
    fewest, most, cheap = vcpus(steady, "fewest"), vcpus(steady, "most"), vcpus(spot, "most")
    said = f"{fewest} vCPUs of on-demand G instances ({most} for the largest fleet, and {cheap} of spot ones)"
    assert said in TEXT.replace("\n", " ")
    assert f"--desired-value {most}\n" in TEXT


def vcpus(nodes: list[Nodes], what: str) -> int:
    return round(sum(node.resources["CPU"] * getattr(node, what) for node in nodes))


def test_the_documented_sed_makes_the_application_of_a_cluster(tmp_path: Path) -> None:
    """And `tierwise validate` has nothing against it."""
    (sed,) = (line.strip() for line in commands().splitlines() if line.strip().startswith("sed -e"))
    command, made = sed.split(" > ")
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    assert yaml.safe_load(done.stdout) == cluster_config()
    (tmp_path / made).write_text(done.stdout)
    switches = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
    checked = subprocess.run(
        [sys.executable, "-m", "serve_app.cli", "validate", "--no-machine", tmp_path / made],
        env={**os.environ, **switches},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_shell_can_read_every_command() -> None:
    assert "ray up" in commands()
    assert "kubectl apply" in commands()
    subprocess.run(["bash", "-n", "-c", commands()], check=True, timeout=10)


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"(?:cluster|requirements|serve_app)/[\w./-]*\w", GUIDE))
    assert len(named) > 8
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_heading_that_it_links_to_is_there() -> None:
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    linked = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert linked
    assert linked - anchors == set()


def test_our_metrics_in_the_table_exist() -> None:
    known = {metric.name for metric in vars(metrics).values() if isinstance(metric, metrics.Metric)}
    named = set(re.findall(r"`ray_(tierwise_\w+)", TABLE))
    assert len(named) > 8
    assert named - known == set()


def test_the_engines_metrics_in_the_table_exist() -> None:
    vllm = find_spec("vllm")  # not imported: that takes ten seconds
    if vllm is None or vllm.origin is None:
        pytest.skip("vLLM is not installed: its metrics' names were not checked")
    source = (Path(vllm.origin).parent / "v1/metrics/loggers.py").read_text(encoding="utf-8")
    known = set(re.findall(r'"vllm:(\w+)"', source))
    named = {name.removesuffix("_total") for name in re.findall(r"`ray_vllm_(\w+)", TABLE)}
    assert len(named) > 4
    assert named - known == set()


def paths(model: type[BaseModel], where: str = "") -> Iterator[str]:
    """Every setting's path, as it is written under `args`."""
    for name, field in model.model_fields.items():
        yield where + name
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from paths(inner, f"{where}{name}.")


def test_the_settings_in_the_table_exist() -> None:
    known = set(paths(Settings))
    named = set(re.findall(r"`((?:live|router|limits|ingress|failures|small|large)\.[\w.]+)", TABLE))
    engine = {name for name in named if ".engine_kwargs." in name}
    assert len(named) > 10
    assert named - engine - known == set()
    profile: dict[str, Any] = yaml.safe_load((ROOT / "serve_app/profiles/g6e.yaml").read_text(encoding="utf-8"))
    for name in engine:
        tier, _, key = name.split(".")
        assert key in profile[tier]["engine_kwargs"], name
