"""What the tests read from cluster/aws."""

from typing import Any

import yaml

from serve_app.settings import NodeShape, parse
from tests.cluster_files.placement import Nodes
from tests.cluster_files.sync import ROOT

FOLDER = ROOT / "cluster/aws"


def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "g6e.yaml").read_text(encoding="utf-8"))
    return loaded


def types() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = config()["available_node_types"]
    return found


def workers() -> list[Nodes]:
    return [
        Nodes(name, kind["resources"], kind["min_workers"], kind["max_workers"], kind["priority"])
        for name, kind in types().items()
        if name != config()["head_node_type"]
    ]


def fleet() -> dict[str, NodeShape]:
    """The instance types of the g6e profile, with their prices."""
    return {node.instance: node for node in parse({"profile": "g6e"}).fleet}
