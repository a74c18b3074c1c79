"""cluster/kuberay: against KubeRay's definition, deployments.yaml, the files that it refers to, and Ray's own autoscaler."""

import copy
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _generate_available_node_types_from_ray_cr_spec

from serve_app.settings import parse
from tests.cluster_files import aws, crd
from tests.cluster_files.placement import Nodes, Part, at, blocked, cluster_config, wanted
from tests.cluster_files.sync import DEPLOYMENTS, RAYSERVICE, synced

FOLDER = RAYSERVICE.parent


@cache
def documents(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(document for document in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")) if document)


def one(name: str, kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents(name) if document["kind"] == kind)
    return found


def service() -> dict[str, Any]:
    return one("rayservice.yaml", "RayService")


def cluster() -> dict[str, Any]:
    found: dict[str, Any] = service()["spec"]["rayClusterConfig"]
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The pods' specifications, by group."""
    groups = {"head": cluster()["headGroupSpec"]} | {group["groupName"]: group for group in cluster()["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def containers() -> Iterator[dict[str, Any]]:
    for spec in (*pods().values(), one("redis.yaml", "StatefulSet")["spec"]["template"]["spec"]):
        yield from spec["containers"]


def workers() -> list[Nodes]:
    """The worker groups as Ray's autoscaler reads them."""
    types = _generate_available_node_types_from_ray_cr_spec(cluster())
    return [
        Nodes(name, kind["resources"], kind["min_workers"], kind["max_workers"], kind.get("priority", 0))
        for name, kind in types.items()
        if name in pods() and name != "head"
    ]


def references(value: Any, key: str) -> Iterator[Any]:
    """Every value under `key`, however deep."""
    if isinstance(value, dict):
        yield from (inner for name, inner in value.items() if name == key)
        for inner in value.values():
            yield from references(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner, key)


def test_the_rayservice_keeps_to_kuberays_definition() -> None:
    jsonschema.Draft202012Validator(crd.rayservice()).validate(service())


def test_a_field_that_kubernetes_would_drop_in_silence_is_noticed() -> None:
    broken = copy.deepcopy(service())
    broken["spec"]["rayClusterConfig"]["workerGroupSpecs"][2]["template"]["spec"]["nodeSelektor"] = {}
    with pytest.raises(jsonschema.ValidationError, match="nodeSelektor"):
        jsonschema.Draft202012Validator(crd.rayservice()).validate(broken)


def test_the_redis_pod_keeps_to_the_definition_of_a_pod() -> None:
    jsonschema.Draft202012Validator(crd.pod()).validate(one("redis.yaml", "StatefulSet")["spec"]["template"])


def test_the_application_is_deployments_yaml_for_a_cluster() -> None:
    assert yaml.safe_load(service()["spec"]["serveConfigV2"]) == cluster_config(), "run `python -m tests.cluster_files.sync`"


def test_a_changed_deployments_yaml_reaches_the_rayservice() -> None:
    text = RAYSERVICE.read_text(encoding="utf-8")
    changed = DEPLOYMENTS.read_text(encoding="utf-8").replace("port: 8000", "port: 8001")
    written = yaml.safe_load(yaml.safe_load(synced(text, changed))["spec"]["serveConfigV2"])
    assert written["http_options"] == {"host": "0.0.0.0", "port": 8001}  # noqa: S104 - behind a service
    assert written["applications"][0]["args"]["profile"] == "g6e"


@pytest.mark.parametrize("line", ["  host: 127.0.0.1\n", "      profile: local\n"])
def test_a_line_that_is_not_there_to_change_is_an_error(line: str) -> None:
    text = DEPLOYMENTS.read_text(encoding="utf-8")
    assert line in text
    with pytest.raises(ValueError, match=line.strip()):
        synced(RAYSERVICE.read_text(encoding="utf-8"), text.replace(line, ""))


def test_the_groups_are_the_node_types_of_the_other_file() -> None:
    """The same machines in the same numbers, whichever way a team takes."""
    ours = {node.name: {key: value for key, value in node.resources.items() if key != "memory"} for node in workers()}
    assert ours == {node.name.replace("_", "-"): node.resources for node in aws.workers()}
    bounds = {node.name: (node.fewest, node.most, node.priority) for node in workers()}
    assert bounds == {node.name.replace("_", "-"): (node.fewest, node.most, node.priority) for node in aws.workers()}


def test_the_graph_fits_on_the_groups(parts: list[Part]) -> None:
    assert wanted(workers(), at(parts, "fewest")) == {node.name: node.fewest for node in workers() if node.fewest}
    assert wanted(workers(), at(parts, "most"))["g6e-xlarge-spot"] == 4
    small = [node for node in workers() if "instance:g6e.xlarge" in node.resources]
    engines = sum(part.most for part in parts if part.together.get("GPU") == 1)
    assert blocked(parts, small[0]) <= sum(node.most for node in small) - engines


def test_a_pod_asks_kubernetes_for_the_gpus_that_it_offers_to_ray() -> None:
    for node in workers():
        pod = pods()[node.name]
        resources = pod["containers"][0]["resources"]
        instance = pod["nodeSelector"]["node.kubernetes.io/instance-type"]
        machine = aws.fleet()[instance]
        assert node.resources[f"instance:{instance}"] == 1
        assert int(resources["limits"]["nvidia.com/gpu"]) == int(resources["requests"]["nvidia.com/gpu"]) == machine.gpus
        # Kubernetes keeps some of a machine for itself; the rest is one pod's.
        assert 0.7 * machine.cpus <= float(resources["requests"]["cpu"]) < machine.cpus
        assert 0.7 * machine.memory_gib <= float(resources["limits"]["memory"].removesuffix("Gi")) < machine.memory_gib
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_the_head_runs_nothing_of_the_graph() -> None:
    assert cluster()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nodeSelector" not in pods()["head"]


def test_every_pod_has_the_same_environment() -> None:
    head, *others = [pod["containers"][0]["env"] for pod in pods().values()]
    assert all(other == head for other in others)
    assert [name for name, times in Counter(entry["name"] for entry in head).items() if times > 1] == []


def test_the_switches_are_those_of_the_other_file() -> None:
    lines = (aws.FOLDER / "environment.sh").read_text(encoding="utf-8").splitlines()
    exported = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export RAY_"))
    exported.pop("RAY_AUTH_MODE")  # `authOptions` sets it here
    env = {entry["name"]: entry.get("value") for entry in pods()["head"]["containers"][0]["env"]}
    assert exported.items() <= env.items()
    assert cluster()["authOptions"] == {"mode": "token"}


def test_every_secret_comes_by_reference_and_is_in_the_template() -> None:
    templates = {secret["metadata"]["name"]: secret["stringData"] for secret in documents("secrets.template.yaml")}
    everything = [*documents("rayservice.yaml"), *documents("redis.yaml")]
    asked = {(reference["name"], reference["key"]) for reference in references(everything, "secretKeyRef")}
    assert asked == {(name, key) for name, data in templates.items() for key in data}
    assert [value for data in templates.values() for value in data.values() if value] == [], "the template holds no value"
    env = pods()["head"]["containers"][0]["env"]
    assert [entry["name"] for entry in env if entry["name"].startswith(("TIERWISE_", "HF_TOKEN")) and "value" in entry] == []


def test_gcs_fault_tolerance_goes_to_the_redis_that_is_here() -> None:
    host, port = cluster()["gcsFaultToleranceOptions"]["redisAddress"].split(":")
    redis = one("redis.yaml", "Service")
    assert (redis["metadata"]["name"], redis["metadata"]["namespace"]) == (host, service()["metadata"]["namespace"])
    assert int(port) in [entry["port"] for entry in redis["spec"]["ports"]]


def test_every_container_is_probed_confined_and_bounded() -> None:
    for container in containers():
        assert {"readinessProbe", "livenessProbe"} <= container.keys(), container["name"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "memory" in container["resources"]["limits"]
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert ":latest" not in container["image"]


def test_every_mount_has_a_volume_and_the_claim_is_here() -> None:
    for pod in pods().values():
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes
    claims = {claim["claimName"] for claim in references(list(pods().values()), "persistentVolumeClaim")}
    assert claims == {one("models.yaml", "PersistentVolumeClaim")["metadata"]["name"]}
    mounted = {mount["mountPath"] for pod in pods().values() for mount in pod["containers"][0]["volumeMounts"]}
    assert next(e["value"] for e in pods()["head"]["containers"][0]["env"] if e["name"] == "HF_HOME") in mounted


def test_the_old_cluster_outlives_its_longest_stream() -> None:
    spec = service()["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    settings = parse({"profile": "g6e"})
    assert spec["rayClusterDeletionDelaySeconds"] > max(engine.graceful_shutdown_timeout_s for engine in settings.engines.values())


def test_the_version_of_ray_is_the_lockeds() -> None:
    lock = (aws.ROOT / "requirements/gpu.lock").read_text(encoding="utf-8")
    assert f"\nray=={cluster()['rayVersion']} " in lock


def test_kustomize_names_files_that_are_here_and_no_secret() -> None:
    kustomization = one("kustomization.yaml", "Kustomization")
    assert [name for name in kustomization["resources"] if not (FOLDER / name).is_file()] == []
    assert "secrets.template.yaml" not in kustomization["resources"]
    images = {container["image"] for pod in pods().values() for container in pod["containers"]}
    assert images == {image["name"] for image in kustomization["images"]}
