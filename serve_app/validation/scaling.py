"""What `QueuePolicy` is given: thresholds that are right by themselves, and that can be reached with the rest of the file."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from serve_app.errors import SettingsError
from serve_app.explain import nearest
from serve_app.settings import EngineSettings, Settings
from serve_app.settings.scaling import Scaling, parse_scaling
from serve_app.validation.bounds import is_number, is_whole
from serve_app.validation.report import Report

POLICY = "serve_app.deployments.autoscaler:QueuePolicy"
SCALED = ("Embedder", "RouterLLM", "SmallTier", "LargeTier")
NEVER_WOKEN = ("Embedder", "RouterLLM")
DELAYS = ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s")
DEFAULT_DELAYS = {"upscale_delay_s": 30.0, "downscale_delay_s": 600.0}
FACTORS = ("upscaling_factor", "downscaling_factor", "smoothing_factor", "upscale_smoothing_factor", "downscale_smoothing_factor")
DEFAULT_INTERVAL_S, DEFAULT_LOOK_BACK_S, RECORDED = 10.0, 30.0, 0.2  # a replica notes its numbers every fifth of the look back


def check(name: str, item: Mapping[Any, Any], where: str, settings: Settings | None, report: Report) -> None:
    """One deployment's policy and its thresholds, each by itself and both together."""
    autoscaling = item.get("autoscaling_config")
    autoscaling = autoscaling if isinstance(autoscaling, Mapping) else {}
    if name in NEVER_WOKEN and autoscaling.get("min_replicas") == 0:
        text = "nobody wakes it: every score is without it for its whole start; only the tiers may sleep"
        report.warning(f"{where}.autoscaling_config.min_replicas", text)
    ours = _check_policy(name, autoscaling, f"{where}.autoscaling_config", report)
    scaling = _thresholds(name, item.get("user_config"), where, report) if name != "Ingress" else None
    if ours and "user_config" not in item:
        report.problem(f"{where}.user_config", f"needed, but missing: {POLICY} scales by its scaling")
    if scaling is None:
        return
    if not ours:
        report.warning(f"{where}.user_config.scaling", f"has no effect without autoscaling_config.policy.policy_function: {POLICY}")
        return
    _check_pace(scaling, autoscaling, f"{where}.user_config.scaling", report)
    if settings is not None and is_whole(limit := item.get("max_ongoing_requests", _accepts(name, settings))) and limit:
        _check_reach(scaling, limit, _runs(name, settings), f"{where}.user_config.scaling", report)


def _thresholds(name: str, value: Any, where: str, report: Report) -> Scaling | None:
    """None when there are none or bad ones."""
    if value is None:
        return None
    if name not in SCALED:
        report.problem(f"{where}.user_config", f"{name} takes none")
    elif not isinstance(value, Mapping):
        report.problem(f"{where}.user_config", f"must be a mapping, got {value!r:.60}")
    else:
        try:
            return parse_scaling(value)
        except SettingsError as error:
            report.under(where, error.problems)
    return None


def _check_policy(name: str, autoscaling: Mapping[Any, Any], where: str, report: Report) -> bool:
    """Whether it is ours. Serve imports it minutes later, when it builds the application."""
    policy = autoscaling.get("policy")
    function = policy.get("policy_function") if isinstance(policy, Mapping) else None
    if not isinstance(policy, Mapping) or function is None:
        return False
    path = f"{where}.policy.policy_function"
    if function == POLICY:
        if name not in SCALED:
            report.problem(path, f"{name} has no queue of an engine to be scaled by: use target_ongoing_requests")
        if policy.get("policy_kwargs"):
            report.problem(f"{where}.policy.policy_kwargs", "takes none: thresholds belong to user_config.scaling, which changes live")
        return name in SCALED
    if not isinstance(function, str) or function.replace(".", ":").split(":")[0] == "serve_app":
        report.problem(path, f"unknown policy {function!r:.60}{nearest(str(function), (POLICY,))}")
    elif not _importable(function):
        report.warning(path, f"{function!r:.60} names a package that is not installed here")
    return False


def _importable(function: str) -> bool:
    """Its package is there; a look inside would import it."""
    try:
        return find_spec(function.replace(":", ".").split(".")[0]) is not None
    except (ImportError, ValueError):  # an empty name, or one that only looks like a package
        return False


def _check_pace(scaling: Scaling, autoscaling: Mapping[Any, Any], where: str, report: Report) -> None:
    for key in DELAYS:
        delay = autoscaling.get(key, DEFAULT_DELAYS.get(key, 0.0))
        if is_number(delay) and delay > 0:
            report.warning(where, f"autoscaling_config.{key} ({delay:g} s) is added to its own times: set it to 0")
    for key in FACTORS:
        factor = autoscaling.get(key)
        if is_number(factor) and factor != 1:
            report.problem(where, f"autoscaling_config.{key} ({factor:g}) would multiply what is decided by it: leave it out")
    interval = autoscaling.get("metrics_interval_s", DEFAULT_INTERVAL_S)
    look_back = autoscaling.get("look_back_period_s", DEFAULT_LOOK_BACK_S)
    if is_number(interval) and is_number(look_back):
        age = interval + min(interval, RECORDED * look_back)
        if scaling.stale_s <= age:
            report.problem(f"{where}.stale_s", f"{scaling.stale_s:g} s, but a report may be {age:g} s old before the next one comes")


def _check_reach(scaling: Scaling, limit: int, runs: int | None, where: str, report: Report) -> None:
    """A threshold above what a replica ever accepts would never add one."""
    if scaling.depth is not None and scaling.depth >= limit:
        report.problem(f"{where}.depth", f"{scaling.depth:g} is never exceeded: a replica accepts {limit} requests (max_ongoing_requests)")
    if scaling.waiting is not None and runs is not None and scaling.waiting >= limit - runs:
        text = f"{scaling.waiting:g} is never exceeded: of the {limit} requests that a replica accepts (max_ongoing_requests), {runs} run"
        report.problem(f"{where}.waiting", text)


def _engine(name: str, settings: Settings) -> EngineSettings | None:
    return {"RouterLLM": settings.router_llm, "SmallTier": settings.small, "LargeTier": settings.large}.get(name)


def _accepts(name: str, settings: Settings) -> int:
    """What `app.build` sets where the file does not, without the places for load reports."""
    engine = _engine(name, settings)
    return 2 * settings.embedder.max_batch_size if engine is None else engine.max_ongoing_requests


def _runs(name: str, settings: Settings) -> int | None:
    """Requests that run at a time; None where vLLM decides."""
    engine = _engine(name, settings)
    value = settings.embedder.max_batch_size if engine is None else engine.engine_kwargs.get("max_num_seqs")
    return value if is_whole(value) else None
