"""Live settings beside the ones that are fixed at start: what needs what, and what has no effect."""

from collections.abc import Mapping
from typing import Any

from serve_app.settings import Settings, check_live
from serve_app.settings.live import PROFILE
from serve_app.validation.deployments import live
from serve_app.validation.report import Report
from serve_app.validation.serve_part import deployments

BUDGET_DAYS = 31  # monthly budgets are summed over the records of their month


def check(config: Mapping[Any, Any], settings: Settings, report: Report) -> None:
    """Both what is in force at start and what `user_config` makes of it."""
    report.under("", check_live(settings, settings.live, "args.live"))
    changed = _user_config(config)
    in_force = live(config, settings)
    if "mirror_share" in changed[1]:
        report.under("", check_live(settings, in_force, changed[0]))
    if in_force.mode == "shadow" and in_force.early_exit.enabled:
        report.warning(
            "live.early_exit.enabled", f"has no effect with live.mode: shadow, where {in_force.shadow_tier} answers whatever it doubts"
        )
    if in_force.calibration != PROFILE and in_force.threshold != "auto":
        report.warning("live.threshold", f"{in_force.threshold:g} is held against the promoted calibration's scores: `auto` takes its own")
    days = settings.ledger.row_days
    if days is not None and days < BUDGET_DAYS:
        report.warning("args.ledger.row_days", f"{days} days are less than a month: monthly budgets forget what is deleted")


def _user_config(config: Mapping[Any, Any]) -> tuple[str, Mapping[Any, Any]]:
    """Path and content of what Ingress is given; empty when there is none, and when it is no mapping, which is said elsewhere."""
    for where, item in deployments(config):
        if item.get("name") == "Ingress" and isinstance(item.get("user_config"), Mapping):
            return f"{where}.user_config", item["user_config"]
    return "", {}
