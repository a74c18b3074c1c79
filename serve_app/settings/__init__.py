"""The one settings object. `args` in deployments.yaml name a profile and override any of its fields.

Everything here is strict: an unknown key or a wrong type is an error that names its path (see `explain`). Secrets never
stand here: they come from environment variables whose names stand here.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from serve_app.errors import SettingsError
from serve_app.explain import explain, nearest
from serve_app.settings.engines import EmbedderSettings, EngineSettings, Model, ModelMemory, Supports, TierSettings, TokenPrice
from serve_app.settings.exporter import ExporterSettings
from serve_app.settings.golden import GoldenSettings
from serve_app.settings.live import CapacitySettings, EarlyExit, Live
from serve_app.settings.novelty import NoveltySettings
from serve_app.settings.path import (
    Auth,
    BreakerSettings,
    FailureSettings,
    IngressSettings,
    LedgerSettings,
    Limits,
    MirrorSettings,
    RetrySettings,
    RouterSettings,
    Timeouts,
)
from serve_app.settings.prewarm import PrewarmSettings, WakingSettings
from serve_app.settings.strict import Fraction, PositiveInt, Seconds, Strict

__all__ = [
    "PROFILES",
    "Auth",
    "BreakerSettings",
    "CapacitySettings",
    "EarlyExit",
    "EmbedderSettings",
    "EngineSettings",
    "ExporterSettings",
    "FailureSettings",
    "Fraction",
    "GoldenSettings",
    "IngressSettings",
    "LedgerSettings",
    "Limits",
    "Live",
    "MirrorSettings",
    "Model",
    "ModelMemory",
    "NodeShape",
    "NoveltySettings",
    "PositiveInt",
    "PrewarmSettings",
    "RetrySettings",
    "RouterSettings",
    "Seconds",
    "Settings",
    "Strict",
    "Supports",
    "TierSettings",
    "Timeouts",
    "TokenPrice",
    "WakingSettings",
    "check_live",
    "load_profile",
    "merge",
    "parse",
    "parse_live",
]
PROFILES = ("local", "g6e")


class NodeShape(Strict):
    """One kind of machine of the fleet, for the checks of `tierwise validate`."""

    instance: str = Field(description="Instance type.")
    cpus: float = Field(gt=0, description="Virtual CPUs.")
    memory_gib: float = Field(gt=0, description="Main memory in GiB.")
    gpus: int = Field(default=0, ge=0, description="GPUs in one machine.")
    gpu: str | None = Field(default=None, description="Ray's accelerator name.")
    gpu_mib: float = Field(default=0, ge=0, description="Usable memory of one GPU in MiB.")
    usd_per_hour: float = Field(default=0, ge=0, description="On-demand price in dollars an hour.")


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
    waking: WakingSettings = Field(default_factory=WakingSettings, description="What happens while the large tier sleeps.")
    limits: Limits = Field(default_factory=Limits, description="What a client may ask for.")
    auth: Auth = Field(default_factory=Auth, description="Who may ask.")
    ledger: LedgerSettings = Field(default_factory=LedgerSettings, description="Where decisions and usage are kept.")
    mirror: MirrorSettings = Field(default_factory=MirrorSettings, description="How mirrored answers are made.")
    exporter: ExporterSettings = Field(default_factory=ExporterSettings, description="The cost exporter.")
    golden: GoldenSettings = Field(default_factory=GoldenSettings, description="What an artefact must reach before it is put live.")
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
