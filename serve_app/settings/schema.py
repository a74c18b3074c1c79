"""The JSON Schema of everything that deployments.yaml may say to tierwise: `args`, and each deployment's `user_config`."""

from pydantic.json_schema import models_json_schema

from serve_app.domain import Json
from serve_app.settings import Live, Settings
from serve_app.settings.scaling import ScaledConfig

SCALED = ("Embedder", "RouterLLM", "SmallTier", "LargeTier")


def schema() -> Json:
    """That of `args`, and beside it `user_config` by deployment: an annotation, which validators of `args` pass over."""
    refs, shared = models_json_schema([(model, "validation") for model in (Settings, Live, ScaledConfig)])
    definitions = shared["$defs"]
    name = refs[Settings, "validation"]["$ref"].rsplit("/", 1)[-1]
    configs = {"Ingress": refs[Live, "validation"], **dict.fromkeys(SCALED, refs[ScaledConfig, "validation"])}
    return {**definitions.pop(name), "user_config": configs, "$defs": definitions}
