"""Thresholds of the queue policy, and what they cannot be beside the rest of the file."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.validation.scaling import POLICY
from tests.validation.common import DELETE, D, changed, report_of

SMALL, LARGE, EMBEDDER = f"{D}.3", f"{D}.4", f"{D}.1"
SCALING = "user_config.scaling"
WHOLE = "autoscaling_config.policy"  # as a whole: the file's anchors share it
FUNCTION = f"{WHOLE}.policy_function"
MISTAKES: list[tuple[str, Any, str]] = [
    (f"{LARGE}.{SCALING}.wating", 3.0, f"{LARGE}.{SCALING}.wating: unknown key, did you mean 'waiting'?"),
    (f"{LARGE}.user_config.scalling", {}, f"{LARGE}.user_config.scalling: unknown key, did you mean 'scaling'?"),
    (f"{LARGE}.{SCALING}.waiting", 0, f"{LARGE}.{SCALING}.waiting: input should be greater than 0, got 0"),
    (f"{LARGE}.{SCALING}.in_after_s", "ten", f"{LARGE}.{SCALING}.in_after_s: input should be a valid number, got 'ten'"),
    (f"{LARGE}.user_config", {}, f"{LARGE}.user_config.scaling: needed, but missing"),
    (f"{LARGE}.user_config", [], f"{LARGE}.user_config: must be a mapping, got []"),
    (f"{LARGE}.user_config", DELETE, f"{LARGE}.user_config: needed, but missing: {POLICY} scales by its scaling"),
    (f"{D}.0.{FUNCTION}", POLICY, f"{D}.0.{FUNCTION}: Ingress has no queue of an engine to be scaled by: use target_ongoing_requests"),
    (f"{LARGE}.{WHOLE}", {"policy_function": f"{POLICY}s"}, f"{LARGE}.{FUNCTION}: unknown policy '{POLICY}s', did you mean '{POLICY}'?"),
    (
        f"{LARGE}.{WHOLE}",
        {"policy_function": POLICY, "policy_kwargs": {"waiting": 20}},
        f"{LARGE}.autoscaling_config.policy.policy_kwargs: takes none: thresholds belong to user_config.scaling, which changes live",
    ),
    (
        f"{LARGE}.autoscaling_config.upscaling_factor",
        2.0,
        f"{LARGE}.{SCALING}: autoscaling_config.upscaling_factor (2) would multiply what is decided by it: leave it out",
    ),
    (f"{SMALL}.{SCALING}.stale_s", 12.0, f"{SMALL}.{SCALING}.stale_s: 12 s, but a report may be 13 s old before the next one comes"),
    (
        f"{LARGE}.{SCALING}.waiting",
        48,
        f"{LARGE}.{SCALING}.waiting: 48 is never exceeded: of the 64 requests that a replica accepts (max_ongoing_requests), 16 run",
    ),
    (
        f"{EMBEDDER}.{SCALING}.depth",
        32,
        f"{EMBEDDER}.{SCALING}.depth: 32 is never exceeded: a replica accepts 32 requests (max_ongoing_requests)",
    ),
]


@pytest.mark.parametrize(("path", "value", "line"), MISTAKES)
def test_a_mistake_in_scaling_is_one_line(tmp_path: Path, path: str, value: Any, line: str) -> None:
    problems = report_of(tmp_path, changed(path, value)).problems
    # The policy that is no longer ours has no use for `scaling`, which is a warning.
    assert problems == [line]


@pytest.mark.parametrize(
    ("where", "key", "value"), [(LARGE, "waiting_in", 20.0), (SMALL, "utilisation_in", 0.7), (EMBEDDER, "depth_in", 16.0)]
)
def test_scaling_in_where_it_would_scale_out_is_refused(tmp_path: Path, where: str, key: str, value: float) -> None:
    (problem,) = report_of(tmp_path, changed(f"{where}.{SCALING}.{key}", value)).problems
    rule = key.removesuffix("_in")
    assert f"{key} must be below {rule}: what takes a replica away would add it again" in problem


def test_thresholds_without_a_rule_are_refused(tmp_path: Path) -> None:
    (problem,) = report_of(tmp_path, changed(f"{LARGE}.{SCALING}.waiting", None)).problems
    assert "at least one of waiting, utilisation, depth must be set" in problem


@pytest.mark.parametrize("policy", [DELETE, {"policy_function": "ray.serve:some_policy"}])
def test_thresholds_that_nothing_reads_are_a_warning(tmp_path: Path, policy: Any) -> None:
    report = report_of(tmp_path, changed(f"{LARGE}.autoscaling_config.policy", policy))
    assert report.problems == []
    assert [line for line in report.warnings if f"{LARGE}.{SCALING}: has no effect" in line]


def test_a_policy_of_a_package_that_is_not_here_is_a_warning(tmp_path: Path) -> None:
    report = report_of(tmp_path, changed(f"{LARGE}.{WHOLE}", {"policy_function": "nowhere.policies:mine"}))
    assert report.problems == []
    assert f"{LARGE}.{FUNCTION}: 'nowhere.policies:mine' names a package that is not installed here" in report.warnings


@pytest.mark.parametrize(("key", "value", "seconds"), [("upscale_delay_s", 5, "5"), ("downscale_delay_s", DELETE, "600")])
def test_a_delay_of_serves_own_is_a_warning_also_the_default(tmp_path: Path, key: str, value: Any, seconds: str) -> None:
    report = report_of(tmp_path, changed(f"{LARGE}.autoscaling_config.{key}", value))
    assert report.problems == []
    assert f"{LARGE}.{SCALING}: autoscaling_config.{key} ({seconds} s) is added to its own times: set it to 0" in report.warnings


@pytest.mark.parametrize(("number", "warned"), [(1, True), (2, True), (4, False)])
def test_only_a_tier_may_sleep_without_a_warning(tmp_path: Path, number: int, *, warned: bool) -> None:
    where = f"{D}.{number}.autoscaling_config.min_replicas"
    report = report_of(tmp_path, changed(where, 0))
    assert not report.problems
    assert any("nobody wakes it" in line for line in report.warnings) is warned
