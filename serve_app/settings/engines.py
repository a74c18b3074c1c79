"""Settings of the models: the engines of the router LLM and of the two tiers, and the embedder."""

from typing import Any, Literal

from pydantic import Field

from serve_app.settings.prewarm import PrewarmSettings
from serve_app.settings.strict import SURGE, Percent, PositiveInt, Seconds, Strict


class ModelMemory(Strict):
    """What `tierwise validate` needs to tell whether a model fits its GPUs."""

    weights_mib: float = Field(gt=0, description="Size of the weights in MiB, over all GPUs together.")
    kv_kib_per_token: float = Field(gt=0, description="KV cache per token in KiB, over all GPUs together.")
    overhead_mib: float = Field(
        default=3072, ge=0, description="Activations, CUDA context and graphs in MiB, on each GPU; an allowance, not a measurement."
    )


class Model(Strict):
    id: str = Field(min_length=1, description="Name under which clients address the model and which answers carry.")
    source: str = Field(
        min_length=1,
        description="`builtin:NAME` for a packaged demonstration checkpoint, a folder, or a Hugging Face repository.",
    )
    revision: str | None = Field(default=None, description="Pinned commit of the Hugging Face repository.")
    licence: str | None = Field(default=None, description="Licence of the weights, for the reader.")
    max_context: int | None = Field(default=None, ge=1, description="The model's own longest context in tokens, for the checks.")
    memory: ModelMemory | None = Field(default=None, description="Sizes; needed where the engine has GPUs.")


class TokenPrice(Strict):
    """US dollars per million tokens."""

    input: float = Field(ge=0, description="Dollars per million prompt tokens.")
    output: float = Field(ge=0, description="Dollars per million generated tokens.")


class EngineSettings(Strict):
    """One vLLM engine in its own deployment."""

    model: Model = Field(description="Which checkpoint it serves.")
    engine_kwargs: dict[str, Any] = Field(default_factory=dict, description="vLLM's engine arguments, by their own names.")
    accelerator_type: str | None = Field(default=None, description="Ray's accelerator name, such as L40S; null means CPU.")
    instance: str | None = Field(
        default=None,
        description="Instance type of the fleet that its replicas keep to; the nodes offer it to Ray as a resource `instance:TYPE`.",
    )
    num_cpus: float = Field(default=1.0, gt=0, description="CPUs that one replica reserves, engine processes included.")
    placement_strategy: Literal["STRICT_PACK", "PACK"] = Field(
        default="STRICT_PACK", description="STRICT_PACK keeps the GPUs of a tensor-parallel engine on one node."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of the engine's processes.")
    max_ongoing_requests: PositiveInt = Field(default=64, description="Requests that one replica accepts at a time.")
    max_queued_requests: PositiveInt = Field(default=256, description="Requests that may wait in one ingress for a place; more are a 429.")
    health_check_period_s: Seconds = Field(default=10.0, description="Time between two health checks, in seconds.")
    health_check_timeout_s: Seconds = Field(default=60.0, description="A health check slower than this counts as failed, in seconds.")
    stall_s: Seconds = Field(
        default=60.0, description="An engine that gives no sign of life for so long is killed and replaced, in seconds."
    )
    max_surge_percent: Percent = Field(default=0, description=SURGE)
    graceful_shutdown_timeout_s: Seconds = Field(
        default=600.0, description="How long a leaving replica may finish its streams, in seconds."
    )
    prewarm: PrewarmSettings = Field(default_factory=PrewarmSettings, description="The first answer of a start, and probes in quiet hours.")

    @property
    def gpus(self) -> int:
        """GPUs of one replica; 0 on CPU."""
        if self.accelerator_type is None:
            return 0
        kwargs = self.engine_kwargs
        return int(kwargs.get("tensor_parallel_size", 1)) * int(kwargs.get("pipeline_parallel_size", 1))

    @property
    def max_model_len(self) -> int | None:
        value = self.engine_kwargs.get("max_model_len")
        return int(value) if value is not None else None


class Supports(Strict):
    """What a tier's model can do; a request that needs more goes to the other tier, or is refused."""

    tools: bool = Field(default=True, description="Tool calls.")
    json_schema: bool = Field(default=True, description="Answers held to a JSON schema.")
    images: bool = Field(default=False, description="Images in messages.")
    logprobs: bool = Field(default=True, description="Log-probabilities.")
    max_n: PositiveInt = Field(default=8, description="Choices in one answer.")


class TierSettings(EngineSettings):
    supports: Supports = Field(default_factory=Supports, description="What the model can do.")
    price: TokenPrice = Field(description="Token prices, for the cost of each request.")


class EmbedderSettings(Strict):
    source: str = Field(description="`package:NAME` for a model inside an installed package, a folder, or a Hugging Face repository.")
    revision: str | None = Field(default=None, description="Pinned commit of the Hugging Face repository.")
    sha256: str | None = Field(default=None, description="Digest of the weights file (model.safetensors); checked at start.")
    max_tokens: PositiveInt = Field(default=256, description="Tokens of the text that are embedded; the rest is cut off.")
    max_batch_size: PositiveInt = Field(default=16, description="Texts embedded in one forward pass.")
    batch_wait_s: float = Field(default=0.002, ge=0, description="How long a batch waits for company, in seconds.")
    threads: PositiveInt = Field(default=1, description="CPU threads of one replica.")
    max_surge_percent: Percent = Field(default=0, description=SURGE)
    num_cpus: float = Field(default=1.0, gt=0, description="CPUs that one replica reserves.")
