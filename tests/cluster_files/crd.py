"""KubeRay's definition of a RayService as JSON Schema, strict about unknown fields. The definition is not part of this repository."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_files.sync import ROOT

NAME = "ray.io_rayservices.crd.yaml"
OBJECTS = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
KEYWORDS = ("type", "enum", "pattern", "required", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "format")
INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


@cache
def rayservice() -> dict[str, Any]:
    """The schema of a whole RayService. Skips the test, saying so, where the definition is not at hand."""
    folder = Path(os.environ.get("TIERWISE_SCHEMAS") or ROOT.parent / "shared/schemas")
    if not (folder / NAME).is_file():
        pytest.skip(f"no {NAME} in $TIERWISE_SCHEMAS or {folder.name}: the RayService was not held against KubeRay's definition")
    definition = yaml.load((folder / NAME).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    (version,) = (version for version in definition["spec"]["versions"] if version["storage"])
    schema = json_schema(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= OBJECTS
    return schema


def pod() -> dict[str, Any]:
    """The schema of a pod's template, as it stands in the same definition."""
    found: dict[str, Any] = rayservice()["properties"]["spec"]["properties"]["rayClusterConfig"]["properties"]["headGroupSpec"]
    template: dict[str, Any] = found["properties"]["template"]
    return template


def json_schema(node: dict[str, Any]) -> dict[str, Any]:
    """A structural schema drops the fields that it does not name: a mistyped one would be lost in silence. Here it is an error."""
    if node.get("x-kubernetes-int-or-string"):
        return {**INT_OR_STRING, **({"pattern": node["pattern"]} if "pattern" in node else {})}
    schema: dict[str, Any] = {key: node[key] for key in KEYWORDS if key in node}
    if "items" in node:
        schema["items"] = json_schema(node["items"])
    if "properties" in node:
        schema["properties"] = {name: json_schema(value) for name, value in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = json_schema(node["additionalProperties"])
    elif node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = node.get("additionalProperties", False)
    return schema
