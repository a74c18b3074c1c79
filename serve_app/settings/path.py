"""Settings of a request's path: scoring, time limits, failures, limits, who may ask, the ledger, mirrors."""

from typing import Annotated, Literal

from pydantic import Field

from serve_app.settings.strict import SURGE, Fraction, Percent, PositiveInt, Seconds, Strict

ORIGIN = r"^https?://[A-Za-z0-9.\-\[\]:]+$"


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


class IngressSettings(Strict):
    max_surge_percent: Percent = Field(default=0, description=SURGE)
    num_cpus: float = Field(default=1.0, gt=0, description="CPUs that one replica reserves.")
    max_ongoing_requests: PositiveInt = Field(default=256, description="Generations that one replica serves at a time; more are a 429.")
    max_wait_s: Seconds = Field(
        default=10.0,
        description="A generation that would wait longer than this for its tier is a 429 with a computed Retry-After, in seconds.",
    )
    max_queued_requests: PositiveInt = Field(default=512, description="Requests that may wait in one proxy for a place; more are a 429.")
