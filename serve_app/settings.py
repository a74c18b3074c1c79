"""The one settings object. `args` in deployments.yaml name a profile and override any of its fields.

Everything here is strict: an unknown key or a wrong type is an error that names its path (see `explain`). Secrets never
stand here: they come from environment variables whose names stand here.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serve_app.errors import SettingsError
from serve_app.explain import explain, nearest

PROFILES = ("local", "g6e")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(ge=1)]
ORIGIN = r"^https?://[A-Za-z0-9.\-\[\]:]+$"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


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
    graceful_shutdown_timeout_s: Seconds = Field(
        default=600.0, description="How long a leaving replica may finish its streams, in seconds."
    )

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
    num_cpus: float = Field(default=1.0, gt=0, description="CPUs that one replica reserves.")


class BreakerSettings(Strict):
    """When a tier or a signal counts as broken, so that it is left alone for a while."""

    failures: PositiveInt = Field(default=5, description="Failed calls that open the breaker.")
    ratio: Fraction = Field(default=0.5, description="Share of the calls of the window that must have failed.")
    window_s: Seconds = Field(default=30.0, description="How far back calls are looked at, in seconds.")
    max_calls: PositiveInt = Field(default=1000, description="Calls that are remembered at most.")
    open_s: Seconds = Field(default=10.0, description="Rest before a probe is let through, in seconds.")


class RouterSettings(Strict):
    """How a request is scored."""

    calibration: str = Field(
        default="builtin", description="The calibration artefact: `builtin`, or a file made by `tierwise calibrate`, present on every node."
    )
    max_chars: PositiveInt = Field(default=2048, description="Characters of the prompt that are scored.")
    embed_deadline_s: Seconds = Field(default=1.0, description="The embedding must come within this, in seconds.")
    assess_deadline_s: Seconds = Field(default=0.25, description="The router LLM's rating must come within this, in seconds.")
    cache_size: Annotated[int, Field(ge=0)] = Field(default=4096, description="Scores that one ingress replica remembers by content.")
    assess_max_tokens: Annotated[int, Field(ge=128)] = Field(
        default=512, description="Tokens of the rating prompt, its fixed part included."
    )
    breaker: BreakerSettings = Field(
        default_factory=lambda: BreakerSettings(ratio=0.9, window_s=10.0, open_s=5.0),
        description="When a signal that is late or fails again and again is not waited for.",
    )


class Timeouts(Strict):
    request_s: Seconds = Field(default=600.0, description="The whole request: no phase and no retry goes beyond it, in seconds.")
    connect_s: Seconds = Field(default=10.0, description="Until a replica of the chosen tier takes the request, in seconds.")
    first_token_s: Seconds = Field(default=120.0, description="A stream, from the engine call to its first token, in seconds.")
    between_tokens_s: Seconds = Field(default=60.0, description="Between two chunks of a stream, in seconds.")
    hung_s: Seconds = Field(
        default=20.0, description="A client that leaves after so long without a first token counts against the tier's breaker, in seconds."
    )


class Limits(Strict):
    max_body_bytes: PositiveInt = Field(default=4 * 1024 * 1024, description="Largest request body in bytes; more is a 413.")
    body_timeout_s: Seconds = Field(default=30.0, description="A body that takes longer to arrive is a 408, in seconds.")
    max_messages: PositiveInt = Field(default=2048, description="Messages in one chat request.")
    max_tokens: PositiveInt | None = Field(
        default=None,
        description="Largest `max_tokens`, in tokens; a request without one gets it, so keep it well below the context lengths.",
    )
    max_n: PositiveInt = Field(default=8, description="Largest `n`.")
    max_top_logprobs: PositiveInt = Field(default=20, description="Largest `top_logprobs`.")
    max_schema_bytes: PositiveInt = Field(default=64 * 1024, description="Largest JSON schema, of a response or of all tools, in bytes.")


class RetrySettings(Strict):
    """Tries beyond the first, before the first byte, after faults of the engine."""

    most: Annotated[int, Field(ge=0, le=5)] = Field(default=2, description="Tries of one request beyond its first.")
    share: Fraction = Field(default=0.1, description="Retries per request that the budget grows by.")
    reserve: PositiveInt = Field(default=10, description="Retries that the budget holds at most.")
    backoff_s: Seconds = Field(default=0.1, description="Longest wait before the first retry, in seconds; it doubles, with jitter.")
    max_backoff_s: Seconds = Field(default=2.0, description="Longest wait before any retry, in seconds.")


class FailureSettings(Strict):
    retry: RetrySettings = Field(default_factory=RetrySettings, description="Tries beyond the first.")
    breaker: BreakerSettings = Field(default_factory=BreakerSettings, description="When a tier is left alone.")
    degraded_answers: bool = Field(
        default=False, description="Let the small tier answer, marked `degraded`, when the large one fails or rests."
    )


class Auth(Strict):
    mode: Literal["open", "keys"] = Field(default="open", description="`open` answers anyone; `keys` asks for a bearer key.")
    keys_env: str = Field(
        default="TIERWISE_API_KEYS", description="Environment variable with keys, or `sha256:HEX` of keys, separated by commas."
    )
    admin_keys_env: str = Field(
        default="TIERWISE_ADMIN_KEYS", description="The same for admin keys, which read every decision and `/status` in detail."
    )
    keys_file: str | None = Field(
        default=None, description="YAML file of keys with their limits, on every node; changes are taken over without a restart."
    )
    cors_origins: list[Annotated[str, Field(pattern=ORIGIN)]] = Field(
        default_factory=list, description="Origins whose web pages may ask, such as https://app.example.com; `*` is refused."
    )


class LedgerSettings(Strict):
    url: str = Field(default="sqlite:///tierwise.db", description="SQLAlchemy URL of the database.")
    url_env: str | None = Field(default=None, description="Environment variable that holds the URL, when it has a password.")
    batch: Annotated[int, Field(ge=1, le=5000)] = Field(default=500, description="Rows written in one transaction.")
    flush_s: Seconds = Field(default=0.05, description="How long the writer waits for company before it commits, in seconds.")
    queue: PositiveInt = Field(
        default=10_000, description="Records that may wait, in an ingress and in the ledger; more are counted as dropped."
    )
    queue_mib: Annotated[int, Field(ge=8)] = Field(
        default=64, description="Text of stored prompts and mirrored answers that may wait beside the records, in MiB."
    )
    store_prompts: bool = Field(default=False, description="Keep the prompts too, up to 256 KiB each; mirrored answers need it.")
    prompt_days: PositiveInt = Field(default=30, description="Days after which prompts and mirrored answers are deleted.")
    row_days: PositiveInt | None = Field(
        default=None, description="Days after which the records themselves are deleted, with their prompts; null keeps them."
    )


class MirrorSettings(Strict):
    """The other tier's answers to a share of the requests, given beside them (see `mirror.py`); the share is `live.mirror_share`."""

    queue: PositiveInt = Field(default=64, description="Answers that may wait in one ingress to be mirrored; more are shed.")
    workers: PositiveInt = Field(default=2, description="Mirrored answers that one ingress lets be generated at a time.")
    timeout_s: Seconds = Field(default=120.0, description="A mirrored answer that takes longer is given up, in seconds.")


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


class Live(Strict):
    """What may change while it runs: delivered as `user_config` of Ingress, no replica restarts."""

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


class NodeShape(Strict):
    """One kind of machine of the fleet, for the checks of `tierwise validate`."""

    instance: str = Field(description="Instance type.")
    cpus: float = Field(gt=0, description="Virtual CPUs.")
    memory_gib: float = Field(gt=0, description="Main memory in GiB.")
    gpus: int = Field(default=0, ge=0, description="GPUs in one machine.")
    gpu: str | None = Field(default=None, description="Ray's accelerator name.")
    gpu_mib: float = Field(default=0, ge=0, description="Usable memory of one GPU in MiB.")
    usd_per_hour: float = Field(default=0, ge=0, description="On-demand price in dollars an hour.")


class IngressSettings(Strict):
    num_cpus: float = Field(default=1.0, gt=0, description="CPUs that one replica reserves.")
    max_ongoing_requests: PositiveInt = Field(default=256, description="Generations that one replica serves at a time; more are a 429.")
    max_wait_s: Seconds = Field(
        default=10.0,
        description="A generation that would wait longer than this for its tier is a 429 with a computed Retry-After, in seconds.",
    )
    max_queued_requests: PositiveInt = Field(default=512, description="Requests that may wait in one proxy for a place; more are a 429.")


class Settings(Strict):
    """All of tierwise's settings. A profile gives every field; `args` override single ones."""

    profile: Literal["local", "g6e"] = Field(description="Which profile the rest is based on.")
    ingress: IngressSettings = Field(default_factory=IngressSettings, description="The HTTP gateway.")
    embedder: EmbedderSettings = Field(description="The embedding model.")
    router_llm: EngineSettings = Field(description="The router LLM that rates its own chances.")
    small: TierSettings = Field(description="The small tier: the weak, cheap model.")
    large: TierSettings = Field(description="The large tier: the strong, dear model.")
    router: RouterSettings = Field(default_factory=RouterSettings, description="How a request is scored.")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Time limits of the path.")
    failures: FailureSettings = Field(default_factory=FailureSettings, description="What happens when a tier fails.")
    limits: Limits = Field(default_factory=Limits, description="What a client may ask for.")
    auth: Auth = Field(default_factory=Auth, description="Who may ask.")
    ledger: LedgerSettings = Field(default_factory=LedgerSettings, description="Where decisions and usage are kept.")
    mirror: MirrorSettings = Field(default_factory=MirrorSettings, description="How mirrored answers are made.")
    live: Live = Field(default_factory=Live, description="Starting values of what may change while it runs.")
    fleet: list[NodeShape] = Field(min_length=1, description="The kinds of machine of this profile.")

    @property
    def engines(self) -> dict[str, EngineSettings]:
        return {"router_llm": self.router_llm, "small": self.small, "large": self.large}


def load_profile(name: str) -> dict[str, Any]:
    """The profile's fields as plain data. Raises `SettingsError` for an unknown name."""
    if name not in PROFILES:
        raise SettingsError([f"args.profile: unknown profile {name!r}{nearest(str(name), PROFILES)}"])
    data = yaml.safe_load(files("serve_app.profiles").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return {"profile": name, **data}


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `override` over `base`, mapping by mapping; lists and scalars are replaced."""
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse(args: Mapping[str, Any]) -> Settings:
    """Turn `args` of deployments.yaml into settings. Raises `SettingsError` with one line per problem."""
    profile = args.get("profile")
    if not isinstance(profile, str):
        raise SettingsError([f"args.profile: needed, one of {', '.join(PROFILES)}"])
    data = merge(load_profile(profile), args)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise SettingsError(explain(error, Settings, "args")) from None


def parse_live(base: Live, user_config: Mapping[str, Any]) -> Live:
    """Lay Serve's `user_config` over the profile's values. Raises `SettingsError`; the caller keeps the old ones."""
    try:
        return Live.model_validate(merge(base.model_dump(), user_config))
    except ValidationError as error:
        raise SettingsError(explain(error, Live, "user_config")) from None


def check_live(settings: Settings, live: Live, root: str = "user_config") -> list[str]:
    """What `live` must not be beside `settings`, one line each; `root` is where it was read. Empty when all is well."""
    if live.mirror_share > 0 and not settings.ledger.store_prompts:
        return [f"{root}.mirror_share: {live.mirror_share:g} keeps prompts and answers for judging: set args.ledger.store_prompts: true"]
    return []
