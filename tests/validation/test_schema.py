"""`tierwise validate --schema`: every setting that deployments.yaml may hold, with its description."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.settings import Live, Settings
from serve_app.settings.scaling import Scaling
from serve_app.validation.scaling import SCALED


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    done = CliRunner().invoke(app, ["validate", "--schema"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return found


def test_it_is_the_schema_of_args(schema: dict[str, Any]) -> None:
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert all(line.get("description") or resolved(schema, line)["description"] for line in schema["properties"].values())


def test_beside_it_stands_the_live_config_of_each_deployment_that_has_one(schema: dict[str, Any]) -> None:
    configs = {name: resolved(schema, node) for name, node in schema["user_config"].items()}
    assert set(configs) == {"Ingress", *SCALED}
    assert set(configs.pop("Ingress")["properties"]) == set(Live.model_fields)
    for config in configs.values():
        assert set(config["properties"]) == {"scaling"}
        scaling = resolved(schema, config["properties"]["scaling"])
        assert set(scaling["properties"]) == set(Scaling.model_fields)
        assert all(line["description"] for line in scaling["properties"].values())


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    named = {part.split('"', 1)[0] for part in json.dumps(schema).split('"#/$defs/')[1:]}
    assert named
    assert named <= set(schema["$defs"])
