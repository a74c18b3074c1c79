"""What an artefact must reach on the golden set before `tierwise promote` puts it live."""

from pydantic import Field

from serve_app.settings.strict import Fraction, Seconds, Strict


class EndpointFloors(Strict):
    """What a golden run through the endpoint must reach, so that `tierwise golden` exits with 0. None is not asked for."""

    accuracy: Fraction | None = Field(default=None, description="Share of the golden prompts that must go to their labelled tier.")
    p99_ttft_s: Seconds | None = Field(
        default=None, description="Seconds until the first token that 99 of 100 routed requests may take at most."
    )
    saved: Fraction | None = Field(
        default=None,
        description="Least share saved by token prices: against the baseline of the run; without one, against the same tokens all large.",
    )
    failed: Fraction = Field(default=0.0, description="Share of the requests that may fail.")


class GoldenSettings(Strict):
    accuracy: Fraction = Field(default=0.95, description="Share of the golden prompts that a `label` artefact must route as labelled.")
    gain_accuracy: Fraction = Field(
        default=0.0, description="The same for a `gain` artefact, whose target is another: 0 only reports its accuracy."
    )
    above_random: bool = Field(
        default=True, description="The interval of the APGR that a `gain` artefact reports of itself must lie above random's 0.5."
    )
    flip_rate: Fraction = Field(
        default=0.05, description="Share of the golden prompts whose tier a perturbation that keeps the meaning may change at most."
    )
    endpoint: EndpointFloors = Field(
        default_factory=EndpointFloors, description="What `tierwise golden` asks of a running endpoint; a missed floor is exit code 1."
    )
