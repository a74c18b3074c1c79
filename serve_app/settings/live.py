"""What may change while it runs: Ingress's `user_config`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serve_app.settings.novelty import NoveltySettings
from serve_app.settings.strict import Fraction, Seconds, Strict


class EarlyExit(Strict):
    """The small tier's first tokens are held back while its confidence in them is watched (see `routing/cascade.py`)."""

    enabled: bool = Field(default=False, description="Let the small tier's doubt send a request to the large tier.")
    tokens: Annotated[int, Field(ge=1, le=256)] = Field(default=16, description="Tokens that are held back and watched.")
    statistic: Literal["mean", "low", "margin"] = Field(
        default="mean",
        description="What is compared: the mean log-probability, its lowest mean over a few tokens, or the lead over the runner-up.",
    )
    threshold: float = Field(default=-1.0, description="Below it the large tier answers; `tierwise early-exit` measures it.")
    whole_threshold: float | None = Field(
        default=None, description="The same for plain answers, which are watched as a whole; `threshold` when not given."
    )


class CapacitySettings(Strict):
    """How far the engines' own queues may move the threshold (see `routing/capacity.py`)."""

    enabled: bool = Field(default=False, description="Let the queues move the threshold.")
    raise_most: Fraction = Field(default=0.15, description="How far a drowning large tier raises the threshold at most.")
    lower_most: Fraction = Field(default=0.05, description="How far an idle large tier lowers it at most.")
    busy: Annotated[float, Field(gt=0)] = Field(
        default=0.8, description="Load of the large tier (running and waiting sequences by capacity) from which the threshold rises."
    )
    idle: Fraction = Field(default=0.2, description="Load of the large tier below which it falls.")
    full: Annotated[float, Field(gt=0)] = Field(default=2.0, description="Load at which it has risen by `raise_most`.")
    smoothing_s: Seconds = Field(default=10.0, description="Time constant with which the threshold follows the load, in seconds.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.idle < self.busy < self.full:
            raise ValueError("idle, busy and full must rise in this order")
        return self


PROFILE = "profile"


class Live(Strict):
    """What may change while it runs: delivered as `user_config` of Ingress, no replica restarts."""

    calibration: Annotated[str, Field(pattern=r"^(profile|[0-9a-f]{64})$")] = Field(
        default=PROFILE,
        description="`profile` is what `args.router.calibration` names; a hash is an artefact that `tierwise promote` put into the ledger.",
    )

    threshold: Literal["auto"] | Fraction = Field(
        default="auto", description="Scores at or above it go to the large tier; `auto` takes the calibration's own."
    )
    embedding_weight: Fraction = Field(default=0.6, description="Weight of the embedding score beside the self-assessment's rest to 1.")
    decisive_margin: Fraction = Field(
        default=0.2, description="An embedding score this far from the threshold decides alone; 1 always asks the router LLM."
    )
    self_assessment: bool = Field(default=True, description="Ask the router LLM at all.")
    math_code_heuristic: bool = Field(default=True, description="Code and mathematics always go to the large tier.")
    conversation_turns: Annotated[int, Field(ge=0, le=16)] = Field(
        default=3,
        description="Easy user turns in a row after which a conversation may drop to the small tier; 0 looks at the last turn only.",
    )
    mode: Literal["normal", "shadow", "canary"] = Field(
        default="normal",
        description="`shadow` decides and records but lets `shadow_tier` answer; `canary` sends `canary_share` of the easy traffic small.",
    )
    shadow_tier: Literal["small", "large"] = Field(default="large", description="Who answers in shadow mode.")
    canary_share: Fraction = Field(default=0.1, description="Share of the sessions whose easy requests go small in canary mode.")
    mirror_share: Fraction = Field(
        default=0.0,
        description="Share of the answers that the other tier gives too, beside the request, for judging; needs stored prompts.",
    )
    early_exit: EarlyExit = Field(default_factory=EarlyExit, description="Doubt of the small tier.")
    capacity: CapacitySettings = Field(default_factory=CapacitySettings, description="Queues that move the threshold.")
    novelty: NoveltySettings = Field(default_factory=NoveltySettings, description="Prompts unlike what the calibration was fitted on.")
