"""What a plan is made from: traffic, engines, prices. Strict: an unknown key is an error that names its path."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from serve_app.domain import Tier
from serve_app.errors import SettingsError
from serve_app.explain import explain
from serve_app.planning.speeds import EngineSpeeds
from serve_app.settings.scaling import Scaling
from serve_app.settings.strict import Fraction, PositiveInt, Seconds, Strict

Tokens = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Model = TypeVar("Model", bound=BaseModel)


class Traffic(Strict):
    """Requests of a month and their shape. Defaults: the article's 10 million with 500 output tokens, 15 % of them hard."""

    requests_per_month: Positive = Field(default=10e6, description="Requests in a month of `hours_per_month`.")
    large_share: Fraction = Field(default=0.15, description="Share whose score is at or above the threshold; scores are spread evenly.")
    prompt_tokens: Tokens = Field(default=400.0, description="Mean length of a prompt; the article says nothing, this is an assumption.")
    prompt_spread: Positive = Field(default=0.8, description="Standard deviation of the logarithm of a prompt's length (lognormal).")
    output_tokens: Tokens = Field(default=500.0, description="Mean length of an answer; its shape is that of arena-hard's answers.")
    longest_output: PositiveInt = Field(default=1024, description="`max_tokens`: answers are cut off there. The article's client: 1024.")
    peak_to_trough: Annotated[float, Field(ge=1.0)] = Field(default=4.0, description="Busiest hour of the day over the quietest.")
    hourly: Annotated[list[Positive], Field(min_length=24, max_length=24)] | None = Field(
        default=None, description="24 weights instead, one for each hour of the day."
    )
    burst_cv: Annotated[float, Field(ge=0.0)] = Field(default=0.25, description="Spread of the rate over its mean, redrawn each burst.")
    burst_s: Seconds = Field(default=60.0, description="How long a burst or a lull lasts, in seconds.")
    escalated_share: Fraction = Field(default=0.1, description="Early exit: share of the small tier's answers that it doubts.")
    watched_tokens: PositiveInt = Field(default=16, description="Early exit: tokens that are held back and watched.")


class Service(Strict):
    """What serves requests beside the engines, in CPU-seconds of one core and in instances."""

    router: str = Field(default="g6e.xlarge", description="Instance type of the router LLM.")
    router_rate: Positive = Field(default=150.0, description="Ratings a second of one replica, at the most.")
    route_s: float = Field(default=0.1, ge=0, description="What scoring adds before the engine is asked, in seconds.")
    embed_cpu_s: float = Field(default=0.03, ge=0, description="One embedding.")
    request_cpu_s: float = Field(default=0.004, ge=0, description="One request through proxy and ingress, without its chunks.")
    chunk_cpu_s: float = Field(default=0.00018, ge=0, description="One chunk of a stream.")
    coalesce_s: Seconds = Field(default=0.025, description="Tokens that come within this are one chunk, in seconds.")
    cpus_used: dict[str, float] = Field(default_factory=dict, description="Cores that the engines themselves use, by instance type.")
    head: str = Field(
        default="m7i.2xlarge", description="Instance type of the head, and of what runs the ingress where GPU nodes are full."
    )
    cpu_target: Share = Field(default=0.6, description="How busy cores are planned to be at most.")
    max_wait_s: Seconds = Field(default=10.0, description="`ingress.max_wait_s`: who would wait longer is refused.")


class Engines(Strict):
    """The fleet's speeds: the packaged derivation, or a file of yours (`--engines`)."""

    small: EngineSpeeds
    large: EngineSpeeds
    service: Service = Field(default_factory=Service)

    def __getitem__(self, tier: Tier) -> EngineSpeeds:
        return self.small if tier is Tier.SMALL else self.large


class Bounds(Strict):
    """How one tier scales; `scaling` is what stands under `user_config` in deployments.yaml."""

    scaling: Scaling
    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt = 100_000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self


class Price(Strict):
    usd_per_hour: float = Field(ge=0)
    cpus: float = Field(gt=0)


class Prices(Strict):
    date: str
    source: str
    hours_per_month: Positive = 730.0
    instances: dict[str, Price]

    def of(self, instance: str) -> Price:
        """Raises `SettingsError` for a type that has no price."""
        if instance not in self.instances:
            raise SettingsError([f"{instance}: no price; known are {', '.join(sorted(self.instances))}"])
        return self.instances[instance]


def read_yaml(path: Path, model: type[Model], root: str) -> Model:
    """Raises `SettingsError`: a line for each thing that is wrong in the file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError):
        raise SettingsError([f"{path}: not readable as YAML"]) from None
    return parsed(data, model, f"{path}: {root}")


def parsed(data: object, model: type[Model], root: str) -> Model:
    if not isinstance(data, Mapping):
        raise SettingsError([f"{root}: must be a mapping of settings"])
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise SettingsError(explain(error, model, root)) from None


def prices(path: Path | None = None) -> Prices:
    if path is not None:
        return read_yaml(path, Prices, "prices")
    data: dict[str, Any] = yaml.safe_load(files("serve_app.planning.data").joinpath("prices.yaml").read_text(encoding="utf-8"))
    return Prices.model_validate({**data, "date": str(data["date"])})
