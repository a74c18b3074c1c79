"""How fast one engine is, in numbers that can be measured: the model of one step of continuous batching. Pure.

A step generates one token for each running sequence, and reads a chunk of the prompts that are new:

    seconds = base + per_sequence * sequences + per_prompt_token * prompt tokens + per_context_token * tokens in the KV cache
"""

import math
from typing import Annotated

from pydantic import Field

from serve_app.settings.strict import PositiveInt, Seconds, Strict

Cost = Annotated[float, Field(ge=0.0)]


class EngineSpeeds(Strict):
    """One replica's speeds and limits."""

    instance: str = Field(description="Instance type that one replica fills.")
    source: str = Field(description="Where the numbers come from: a measurement with its command, or a derivation.")
    measured: bool = Field(default=False, description="Whether they were measured on this hardware.")
    base_s: Seconds = Field(description="A step with nothing in it, in seconds: the weights are read once.")
    per_sequence_s: Cost = Field(default=0.0, description="What each running sequence adds to a step, in seconds.")
    per_prompt_token_s: Cost = Field(default=0.0, description="What each prompt token read in a step adds, in seconds.")
    per_context_token_s: Cost = Field(default=0.0, description="What each token in the KV cache adds to a step, in seconds.")
    max_num_seqs: PositiveInt = Field(description="Sequences that run at a time.")
    max_num_batched_tokens: PositiveInt = Field(default=8192, description="Tokens that one step processes at most.")
    kv_tokens: PositiveInt = Field(description="Tokens that the KV cache holds.")
    cold_start_s: float = Field(default=0.0, ge=0, description="From the wish for a replica to its first token, in seconds.")
    request_s: float = Field(default=0.0, ge=0, description="What a request costs outside the engine before its first token, in seconds.")

    request_per_sequence_s: Cost = Field(
        default=0.0, description="What each running sequence adds to that, in seconds: its stream uses the same event loops."
    )

    def step_s(self, sequences: int, context: float, prompt_tokens: int = 0) -> float:
        return self.base_s + self.per_sequence_s * sequences + self.per_prompt_token_s * prompt_tokens + self.per_context_token_s * context

    def outside_s(self, running: int) -> float:
        """What a request takes before the engine sees it, in seconds, while so many sequences run on its replica."""
        return self.request_s + self.request_per_sequence_s * running

    def throughput(self, prompt: float, output: float) -> float:
        """Requests a second of a replica that always has as many sequences as fit, for requests of these mean lengths."""
        context = prompt + output / 2
        sequences = min(float(self.max_num_seqs), max(self.kv_tokens / (prompt + output), 1.0))
        decode = self.base_s + self.per_sequence_s * sequences + self.per_context_token_s * sequences * context
        return sequences / (output * decode + sequences * prompt * self.per_prompt_token_s)

    def running(self, rate: float, prompt: float, output: float) -> float:
        """Sequences that run at a time under `rate` requests a second (Little's law), at most `max_num_seqs`.

        With b sequences a request takes output * step(b) seconds and waits out the prompts that come meanwhile: b = rate * seconds(b).
        """
        busy = rate * prompt * self.per_prompt_token_s
        slope = rate * output * (self.per_sequence_s + self.per_context_token_s * (prompt + output / 2))
        left = 1.0 - busy - slope
        if left <= 0:
            return float(self.max_num_seqs)
        return min(rate * output * self.base_s / left, float(self.max_num_seqs))


def span_s(step_s: float, growth_s: float, steps: int) -> float:
    """Seconds of `steps` steps of which the first takes `step_s` and each next one `growth_s` longer."""
    return steps * step_s + growth_s * steps * (steps - 1) / 2


def steps_in(step_s: float, growth_s: float, seconds: float) -> int:
    """How many whole steps it takes until at least `seconds` have gone by; one at least."""
    if growth_s <= 0:
        return max(math.ceil(seconds / step_s - 1e-9), 1)
    half = step_s - growth_s / 2
    return max(math.ceil((math.sqrt(half * half + 2 * growth_s * seconds) - half) / growth_s - 1e-9), 1)
