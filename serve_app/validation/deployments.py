"""The six deployments' entries: names, replicas, autoscaling, user_config."""

from collections.abc import Mapping
from typing import Any

from serve_app.errors import SettingsError
from serve_app.explain import nearest
from serve_app.settings import Live, Settings, parse_live
from serve_app.validation import scaling
from serve_app.validation.bounds import Bound, is_number, is_whole
from serve_app.validation.report import Report
from serve_app.validation.serve_part import BOUNDS, deployments

NAMES = ("Ingress", "Embedder", "RouterLLM", "SmallTier", "LargeTier", "Ledger")
DEFAULT_MAX_ONGOING = 5  # Serve's own, where neither the file nor tierwise sets one
DEFAULT_TARGET = 2
AUTO_MAX_REPLICAS = 100  # what `num_replicas: auto` means
EXTREME = (0.02, 0.98)


def check(config: Mapping[Any, Any], settings: Settings | None, report: Report) -> None:
    """`settings` are None when `args` are broken; what needs them is then left out."""
    seen: set[str] = set()
    for where, item in deployments(config):
        name = item.get("name")
        if name is None:
            report.problem(f"{where}.name", "needed, but missing")
        elif name not in NAMES:
            report.problem(f"{where}.name", f"unknown deployment {name!r:.60}{nearest(str(name), NAMES)}")
        elif name in seen:
            report.problem(f"{where}.name", f"{name} is listed twice")
        else:
            seen.add(name)
            _check_replicas(name, item, where, report)
            _check_autoscaling(name, item, where, settings, report)
            _check_user_config(name, item, where, settings, report)
            scaling.check(name, item, where, settings, report)
            _check_cpus(item, where, settings, report)


def live(config: Mapping[Any, Any], settings: Settings) -> Live:
    """What will be in force: the `user_config` of Ingress over `args.live`; a bad one counts for nothing."""
    for _, item in deployments(config):
        if item.get("name") == "Ingress" and isinstance(item.get("user_config"), Mapping):
            try:
                return parse_live(settings.live, item["user_config"])
            except SettingsError:
                break
    return settings.live


def check_threshold(threshold: str | float, report: Report) -> None:
    """A rough statement: the shares themselves are only known for the calibration's own threshold."""
    if isinstance(threshold, str) or EXTREME[0] < threshold < EXTREME[1]:
        return
    tier = "large" if threshold <= EXTREME[0] else "small"
    report.warning("live.threshold", f"{threshold:g} sends nearly every request to the {tier} tier")


def _check_replicas(name: str, item: Mapping[Any, Any], where: str, report: Report) -> None:
    replicas = item.get("num_replicas")
    path = f"{where}.num_replicas"
    if name == "Ledger" and replicas not in (None, 1):
        report.problem(path, f"Ledger is the one writer: must be 1, got {replicas!r:.60}")
    elif replicas not in (None, "auto") and (complaint := Bound(1, whole=True).complaint(replicas)):
        report.problem(path, f"{complaint}; or 'auto'")
    elif name != "Ledger" and replicas not in (None, "auto") and item.get("autoscaling_config") is not None:
        report.problem(path, "Serve refuses it beside autoscaling_config")


def _check_autoscaling(name: str, item: Mapping[Any, Any], where: str, settings: Settings | None, report: Report) -> None:
    autoscaling = item.get("autoscaling_config")
    automatic = item.get("num_replicas") == "auto"
    path = f"{where}.autoscaling_config"
    if name == "Ledger":
        if autoscaling is not None:
            report.problem(path, "Ledger is the one writer: it cannot be scaled")
        return
    if not isinstance(autoscaling, Mapping):
        if autoscaling is not None or not automatic:
            return
        autoscaling = {}
    if any(bound.complaint(autoscaling[key]) for key, bound in BOUNDS["AutoscalingConfig"].items() if key in autoscaling):
        return  # said by `serve_part`
    _check_order(autoscaling, path, AUTO_MAX_REPLICAS if automatic else 1, report)
    if settings is not None and "policy" not in autoscaling:  # a policy of one's own decides by something else
        limit = item.get("max_ongoing_requests", _max_ongoing(name, settings))
        _check_target(autoscaling.get("target_ongoing_requests", DEFAULT_TARGET), limit, path, report)


def _check_order(autoscaling: Mapping[Any, Any], path: str, default_max: int, report: Report) -> None:
    low, high = autoscaling.get("min_replicas", 1), autoscaling.get("max_replicas", default_max)
    initial = autoscaling.get("initial_replicas")
    shown = f"{high}" if "max_replicas" in autoscaling else f"{high}, the default"
    if low > high:
        report.problem(f"{path}.min_replicas", f"{low} is more than max_replicas ({shown})")
    elif initial is not None and not low <= initial <= high:
        report.problem(f"{path}.initial_replicas", f"{initial} is not between min_replicas ({low}) and max_replicas ({shown})")


def _check_target(target: float, limit: Any, path: str, report: Report) -> None:
    """Serve compares the two when it deploys, and goes on with a warning in its log."""
    if is_whole(limit) and 1 <= limit < target:
        text = f"{target} is more than the {limit} requests (max_ongoing_requests) that a replica accepts: it would never scale up"
        report.problem(f"{path}.target_ongoing_requests", text)


def _max_ongoing(name: str, settings: Settings) -> int:
    """What `app.build` sets where the file does not."""
    return {
        "Ingress": settings.ingress.max_ongoing_requests,
        "Embedder": 2 * settings.embedder.max_batch_size,
        "RouterLLM": settings.router_llm.max_ongoing_requests,
        "SmallTier": settings.small.max_ongoing_requests,
        "LargeTier": settings.large.max_ongoing_requests,
    }.get(name, DEFAULT_MAX_ONGOING)


def _check_user_config(name: str, item: Mapping[Any, Any], where: str, settings: Settings | None, report: Report) -> None:
    """Ingress's; what the others are given is `scaling`'s."""
    value = item.get("user_config")
    path = f"{where}.user_config"
    if value is None or name != "Ingress":
        return
    if not isinstance(value, Mapping):
        report.problem(path, f"must be a mapping, got {value!r:.60}")
    else:
        try:
            parse_live(settings.live if settings is not None else Live(), value)
        except SettingsError as error:
            report.under(where, error.problems)


def _check_cpus(item: Mapping[Any, Any], where: str, settings: Settings | None, report: Report) -> None:
    options = item.get("ray_actor_options")
    cpus = options.get("num_cpus") if isinstance(options, Mapping) else None
    if settings is None or not is_number(cpus):
        return
    largest = max(settings.fleet, key=lambda node: node.cpus)
    if cpus > largest.cpus:
        path = f"{where}.ray_actor_options.num_cpus"
        report.problem(path, f"{cpus:g} CPUs; the largest node of args.fleet, {largest.instance}, has {largest.cpus:g}")
