"""Live settings beside the ones that are fixed at start."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.settings import check_live, parse, parse_live
from tests.validation.common import FILE, INGRESS, VLLM, D, changed, report_of

USER = f"{D}.{INGRESS}.user_config"
NEEDS = "keeps prompts and answers for judging: set args.ledger.store_prompts: true"


def warnings_of(tmp_path: Path, config: object) -> list[str]:
    return [line for line in report_of(tmp_path, config).warnings if VLLM or not line.startswith("vllm: ")]


@pytest.mark.parametrize(
    ("path", "where"),
    [("args.live", "args.live"), (USER, USER)],
    ids=["args", "user_config"],
)
def test_mirrored_answers_need_stored_prompts(tmp_path: Path, path: str, where: str) -> None:
    config = changed(f"{path}.mirror_share", 0.1)
    assert report_of(tmp_path, config).problems == [f"{where}.mirror_share: 0.1 {NEEDS}"]
    config["applications"][0]["args"]["ledger"] = {"store_prompts": True}
    assert report_of(tmp_path, config).problems == []


def test_a_share_in_the_profile_is_said_once_although_user_config_takes_over_the_rest(tmp_path: Path) -> None:
    assert report_of(tmp_path, changed("args.live", {"mirror_share": 0.5})).problems == [f"args.live.mirror_share: 0.5 {NEEDS}"]


def test_user_config_cannot_make_up_for_args(tmp_path: Path) -> None:
    """A replica runs on `args.live` until it is given `user_config`."""
    config = changed("args.live", {"mirror_share": 0.5})
    config["applications"][0]["deployments"][INGRESS]["user_config"] = {"mirror_share": 0.0}
    assert report_of(tmp_path, config).problems == [f"args.live.mirror_share: 0.5 {NEEDS}"]


def test_the_gateway_can_ask_before_it_takes_a_change_over() -> None:
    without, stored = (parse({"profile": "local", "ledger": {"store_prompts": on}}) for on in (False, True))
    live = parse_live(without.live, {"mirror_share": 0.25})
    assert check_live(without, live) == [f"user_config.mirror_share: 0.25 {NEEDS}"]
    assert check_live(stored, live) == check_live(without, without.live) == []


@pytest.mark.parametrize(("mode", "warned"), [("shadow", True), ("canary", False), ("normal", False)])
def test_early_exit_in_shadow_mode_is_warned_of(tmp_path: Path, mode: str, warned: bool) -> None:
    config = changed(USER, {"mode": mode, "early_exit": {"enabled": True}})
    expected = ["live.early_exit.enabled: has no effect with live.mode: shadow, where large answers whatever it doubts"]
    assert warnings_of(tmp_path, config) == (expected if warned else [])


@pytest.mark.parametrize(("days", "warned"), [(7, True), (31, False), (None, False)])
def test_records_that_go_within_the_month_are_warned_of(tmp_path: Path, days: int | None, warned: bool) -> None:
    expected = ["args.ledger.row_days: 7 days are less than a month: monthly budgets forget what is deleted"]
    assert warnings_of(tmp_path, changed("args.ledger", {"row_days": days})) == (expected if warned else [])


@pytest.mark.parametrize(
    ("live", "warned"),
    [({"threshold": 0.65}, True), ({"threshold": "auto"}, False), ({"threshold": 0.65, "calibration": "profile"}, False)],
)
def test_a_threshold_beside_a_promoted_calibration_is_warned_of(tmp_path: Path, live: dict[str, Any], warned: bool) -> None:
    """Another calibration's scores lie elsewhere."""
    expected = ["live.threshold: 0.65 is held against the promoted calibration's scores: `auto` takes its own"]
    assert warnings_of(tmp_path, changed(USER, {"calibration": "a" * 64, **live})) == (expected if warned else [])


def test_what_is_no_hash_is_refused_in_one_line(tmp_path: Path) -> None:
    problems = report_of(tmp_path, changed(f"{USER}.calibration", "mine.npz")).problems
    assert problems == [f"{USER}.calibration: string should match pattern '^(profile|[0-9a-f]{{64}})$', got 'mine.npz'"]


@pytest.mark.parametrize("value", [None, 3, [], "mirror_share"])
def test_a_user_config_that_is_no_mapping_is_left_to_its_own_check(tmp_path: Path, value: Any) -> None:
    problems = report_of(tmp_path, changed(USER, value)).problems
    assert [line for line in problems if "mirror_share" in line.partition(": ")[0]] == []
    assert len(problems) == (0 if value is None else 1)


def test_the_file_as_it_is_has_nothing_of_this(tmp_path: Path) -> None:
    assert report_of(tmp_path, FILE.read_text()).problems == []
