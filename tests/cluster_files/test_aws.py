"""cluster/aws: what `ray up` reads, against Ray's own schema, the g6e profile's fleet, and Ray's own autoscaler."""

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster_files import aws
from tests.cluster_files.placement import ENGINES, Part, at, blocked, wanted
from tests.cluster_files.sync import ROOT

SECRETS = {"RAY_AUTH_TOKEN", "TIERWISE_API_KEYS", "TIERWISE_ADMIN_KEYS", "TIERWISE_LEDGER_URL", "TIERWISE_HASH_KEY", "HF_TOKEN"}


def test_ray_accepts_the_file() -> None:
    validate_config(prepare_config(aws.config()))


@pytest.mark.parametrize("place", [(), ("provider",), ("available_node_types", "g6e_xlarge")])
def test_ray_would_refuse_a_mistyped_key(place: tuple[str, ...]) -> None:
    """The test above would hold for anything if the schema let everything through."""
    config = prepare_config(aws.config())
    target: Any = config
    for key in place:
        target = target[key]
    target["max_worker"] = 1
    if place == ("provider",):
        target["region"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validate_config(config)


def test_every_worker_is_a_machine_of_the_profiles_fleet() -> None:
    for name, kind in aws.types().items():
        if name != "head":
            node = aws.fleet()[kind["node_config"]["InstanceType"]]
            assert kind["resources"] == {
                "CPU": node.cpus,
                "GPU": node.gpus,
                f"accelerator_type:{node.gpu}": 1,
                f"instance:{node.instance}": 1,
            }


def test_the_head_runs_nothing_of_the_graph() -> None:
    head = aws.types()["head"]
    assert (head["resources"], head["max_workers"]) == ({"CPU": 0, "instance:m7i.2xlarge": 1}, 0)
    assert head["node_config"]["InstanceType"].startswith("m")


def test_the_smallest_graph_fits_on_the_smallest_fleet(parts: list[Part]) -> None:
    """Ray's autoscaler wants not one node more than `min_workers`."""
    fewest = {node.name: node.fewest for node in aws.workers() if node.fewest}
    assert wanted(aws.workers(), at(parts, "fewest")) == fewest


def test_the_largest_graph_fits_on_the_largest_fleet(parts: list[Part]) -> None:
    started = wanted(aws.workers(), at(parts, "most"))
    spot = next(node for node in aws.workers() if node.name == "g6e_xlarge_spot")
    assert started["g6e_xlarge_spot"] == spot.most, "what is beyond the first replicas goes to the cheaper nodes"
    assert sum(started.values()) <= aws.config()["max_workers"]


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_graph_that_grew_beyond_the_fleet_is_noticed(engine: str, parts: list[Part]) -> None:
    """Eleven are more than any kind of node can be; a router that took GPUs of the large tier's nodes would still fit."""
    many = [part for part in parts if part.name == engine] * 11
    with pytest.raises(AssertionError):
        wanted(aws.workers(), many)


def test_parts_without_a_gpu_cannot_keep_every_engine_away(parts: list[Part]) -> None:
    """Were they all to come first and crowd the small nodes, there would still be a node for each engine of one GPU."""
    small = [node for node in aws.workers() if "instance:g6e.xlarge" in node.resources]
    engines = sum(part.most for part in parts if part.together.get("GPU") == 1)
    assert 0 < blocked(parts, small[0]) <= sum(node.most for node in small) - engines


def test_only_the_spot_type_asks_for_the_spot_price() -> None:
    markets = {name: kind["node_config"].get("InstanceMarketOptions") for name, kind in aws.types().items()}
    assert [name for name, market in markets.items() if market] == ["g6e_xlarge_spot"]
    spot, steady = aws.types()["g6e_xlarge_spot"], aws.types()["g6e_xlarge"]
    assert (spot["min_workers"], spot["resources"]) == (0, steady["resources"])
    assert spot["priority"] > steady["priority"]


def test_what_is_mounted_is_enough_to_install_and_no_more() -> None:
    mounts = {Path(local) for local in aws.config()["file_mounts"].values()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    ]
    made = Path("deployments.g6e.yaml")
    assert mounts == {Path("pyproject.toml"), Path("requirements"), Path("cluster/aws"), made, *map(Path, needed)}
    assert [str(path) for path in mounts - {made} if not (ROOT / path).exists()] == []


def test_every_node_starts_ray_after_the_same_environment() -> None:
    config = aws.config()
    for role in ("head", "worker"):
        start = config[f"{role}_start_ray_commands"][-1]
        assert start.index(". cluster/aws/environment.sh &&") < start.index("ray start")
        assert "--metrics-export-port=8080" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("role", ["head", "worker"])
def test_the_shell_can_read_the_commands(role: str) -> None:
    config = aws.config()
    commands = [*config["setup_commands"], *config["head_setup_commands"], *config[f"{role}_start_ray_commands"]]
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True, timeout=10)


def environment(tmp_path: Path, aws_command: str) -> subprocess.CompletedProcess[str]:
    """What `. environment.sh && env` says where `aws` is a script of ours."""
    fake = tmp_path / "aws"
    fake.write_text(f"#!/bin/bash\n{aws_command}\n")
    fake.chmod(0o755)
    script = f". {aws.FOLDER}/environment.sh && env"
    clean = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    return subprocess.run(["bash", "-c", script], env=clean, capture_output=True, text=True, check=False, timeout=30)


def variables(output: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def test_the_secrets_come_from_the_parameter_store(tmp_path: Path) -> None:
    done = environment(tmp_path, 'echo "$*" >> "$HOME/asked"; echo "value of $4 with = and spaces"')
    assert (done.returncode, done.stderr) == (0, "")
    found = variables(done.stdout)
    assert {name: found[name] for name in SECRETS} == {name: f"value of /tierwise/{name} with = and spaces" for name in SECRETS}
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == len(SECRETS)
    assert all("--with-decryption" in line for line in asked)


def test_a_secret_that_cannot_be_read_keeps_ray_from_starting(tmp_path: Path) -> None:
    done = environment(tmp_path, '[ "$4" != /tierwise/HF_TOKEN ]')
    assert done.returncode != 0
    assert done.stderr == "environment: /tierwise/HF_TOKEN cannot be read\n"


def test_serves_switches_are_on(tmp_path: Path) -> None:
    found = variables(environment(tmp_path, "echo x").stdout)
    assert found["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert (found["RAY_SERVE_HAPROXY_METRICS_PORT"], found["RAY_SERVE_HAPROXY_STATS_PORT"]) == ("9101", "8404")
    assert found["RAY_AUTH_MODE"] == "token"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    callback = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    assert f"export {callback} := {found[callback]}\n" in makefile


def test_the_policies_let_a_node_read_its_secrets_and_no_others() -> None:
    policies = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (aws.FOLDER / "policies").glob("*.json")}
    (secrets,) = policies["secrets"]["Statement"]
    assert secrets["Action"] == "ssm:GetParameter"
    assert secrets["Resource"].endswith(":parameter/tierwise/*")
    allowed = [statement for policy in policies.values() for statement in policy["Statement"]]
    assert not [statement for statement in allowed if statement["Action"] in ("*", "ec2:*", "iam:*")]
    profiles = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in aws.types().values()}
    assert profiles == {"tierwise-head", "tierwise-worker"}
