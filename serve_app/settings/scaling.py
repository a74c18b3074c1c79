"""When replicas are added and taken away: `user_config: {scaling: {...}}` of a deployment that `QueuePolicy` scales.

The replicas take it over without a restart and hand it on with their statistics, as plain numbers: the policy lives in Serve's
controller, and a change of its own arguments would restart the whole application.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from serve_app.errors import SettingsError
from serve_app.explain import explain
from serve_app.settings.strict import Fraction, Seconds, Strict

Requests = Annotated[float, Field(gt=0)]
PREFIX = "scaling_"
RULES = ("waiting", "utilisation", "depth")


class Scaling(Strict):
    """Three rules, of which those that are set count: any of them may add a replica, all of them must agree to take one away."""

    waiting: Requests | None = Field(
        default=None, description="One replica is added when more requests than this wait in the engines, per replica."
    )
    waiting_in: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="One is taken away when no more than this would wait per replica that is left."
    )
    utilisation: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Replicas are added until running and waiting requests are this share of what the engines can run."
    )
    utilisation_in: Fraction = Field(
        default=0.5, description="One is taken away when those that are left would be used to no more than this share."
    )
    depth: Requests | None = Field(default=None, description="One is added when more requests than this run or wait, per replica.")
    depth_in: Annotated[float, Field(ge=0)] = Field(
        default=2.0, description="One is taken away when no more than this would run or wait per replica that is left."
    )
    out_after_s: Seconds = Field(default=30.0, description="How long it must be too much before a replica is added, in seconds.")
    in_after_s: Seconds = Field(default=600.0, description="How long fewer must have been enough before one is taken away, in seconds.")
    ahead_s: Annotated[float, Field(ge=0)] = Field(
        default=90.0,
        description="Replicas are added for the load that the trend of `out_after_s` gives so far ahead, in seconds: about a cold start.",
    )
    cooldown_s: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="After a change of the replicas nothing is changed for so long, in seconds."
    )
    idle_s: Seconds = Field(default=900.0, description="With min_replicas 0, the last replica goes after so long without any request.")
    stale_s: Seconds = Field(default=30.0, description="Statistics of a replica that are older say nothing, and hold, in seconds.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.rules:
            raise ValueError(f"at least one of {', '.join(RULES)} must be set")
        for rule in self.rules:
            if getattr(self, f"{rule}_in") >= getattr(self, rule):
                raise ValueError(f"{rule}_in must be below {rule}: what takes a replica away would add it again")
        return self

    @property
    def rules(self) -> list[str]:
        """The rules that are set."""
        return [rule for rule in RULES if getattr(self, rule) is not None]

    def numbers(self) -> dict[str, float]:
        """As a replica's statistics carry it."""
        return {f"{PREFIX}{name}": float(value) for name, value in self.model_dump(exclude_none=True).items()}

    @classmethod
    def from_numbers(cls, stats: Mapping[str, float]) -> Self:
        """What `numbers` made. Raises `ValidationError` for numbers that no replica of ours sends."""
        return cls.model_validate({name.removeprefix(PREFIX): value for name, value in stats.items() if name.startswith(PREFIX)})


class ScaledConfig(Strict):
    """The `user_config` of a deployment that `QueuePolicy` scales."""

    scaling: Scaling = Field(description="When replicas are added and taken away.")


def parse_scaling(user_config: Mapping[str, Any]) -> Scaling:
    """Raises `SettingsError` with one line per problem; the caller keeps the old one."""
    try:
        return ScaledConfig.model_validate(user_config).scaling
    except ValidationError as error:
        raise SettingsError(explain(error, ScaledConfig, "user_config")) from None
