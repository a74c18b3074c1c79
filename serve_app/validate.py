"""`tierwise validate`: read deployments.yaml and say what would not work, in seconds and without starting anything.

Serve ignores keys that it does not know, and an engine refuses a bad value minutes after the start. Here both are one line.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.errors import SettingsError
from serve_app.settings import Settings, parse
from serve_app.validation import database, deployments, document, engines, fit, live, machine, serve_part
from serve_app.validation.report import Report

__all__ = ["Report", "check_file"]


def check_file(path: Path, *, check_machine: bool = True) -> Report:
    """Check the file; with `check_machine` also that this machine has the port free and memory enough. Never raises."""
    report = Report()
    config = document.read(path, report)
    if config is None:
        return report
    serve_part.check(config, report)
    machine.check_host(config, report)
    settings = _settings(config, report)
    deployments.check(config, settings, report)
    if settings is not None:
        _check_settings(config, settings, report)
    if check_machine:
        machine.check_port(config, report)
        if settings is not None:
            machine.check_memory(settings, report)
    return report


def _settings(config: Mapping[Any, Any], report: Report) -> Settings | None:
    """None when `args` are broken or there is no application at all, which is said elsewhere."""
    app = serve_part.application(config)
    if not app:
        return None
    args = app.get("args", {})
    if not isinstance(args, Mapping):
        report.problem("args", f"must be a mapping, got {args!r:.60}")
        return None
    try:
        return parse(args)
    except SettingsError as error:
        report.under("", error.problems)
        return None


def _check_settings(config: Mapping[Any, Any], settings: Settings, report: Report) -> None:
    sound = engines.check(settings, report)
    fit.check(settings, sound, report)
    machine.check_access(config, settings, report)
    machine.check_calibration(settings, report)
    machine.check_environment(settings, report)
    database.check(settings, report)
    deployments.check_threshold(deployments.live(config, settings).threshold, report)
    live.check(config, settings, report)
