"""Settings of what happens to a prompt that is unlike everything that the calibration was fitted on."""

from typing import Literal

from pydantic import Field

from serve_app.settings.strict import Fraction, Strict


class NoveltySettings(Strict):
    """A novel prompt's score is worth less, so that more of them go to one side (see `routing/policy.py`).

    It is marked and counted also where this is switched off. A request that names its tier or its own threshold is left alone.
    """

    enabled: bool = Field(default=True, description="Let novelty move the threshold.")
    above: Fraction = Field(
        default=0.25, description="A prompt counts as novel above this; 0: like the fitted rows, 1: unlike all of them."
    )
    margin: Fraction = Field(default=0.1, description="How far the threshold moves for a novel prompt, towards `tier`.")
    tier: Literal["small", "large"] = Field(default="large", description="Which tier gets the novel prompts near the threshold.")
