"""Settings of warm and cold engines are refused at once where they say nothing that can be meant."""

from typing import Any

import pytest

from serve_app.errors import SettingsError
from serve_app.settings import parse


def problems(**args: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse({"profile": "local", **args})
    return caught.value.problems


def test_what_is_given_is_taken() -> None:
    prewarm = {"every_s": 60.0, "off_peak": ["22:00-06:00", "12:00-13:00"], "timezone": "Europe/Berlin"}
    settings = parse({"profile": "local", "large": {"prewarm": prewarm}, "waking": {"policy": "small"}})
    assert settings.large.prewarm.off_peak == ["22:00-06:00", "12:00-13:00"]
    assert (settings.small.prewarm.off_peak, settings.waking.policy) == ([], "small")


def test_windows_zones_and_policies_are_checked_by_their_paths() -> None:
    [window] = problems(large={"prewarm": {"off_peak": ["22:00-06:00", "nightly"]}})
    assert window.startswith("args.large.prewarm.off_peak.1:")
    assert "must look like 22:00-06:00" in window
    [zone] = problems(router_llm={"prewarm": {"timezone": "Europe/Berln"}})
    assert zone.startswith("args.router_llm.prewarm.timezone: value error, no such time zone")
    [policy] = problems(waking={"policy": "sleep"})
    assert policy.startswith("args.waking.policy:")


@pytest.mark.parametrize("name", ["Europe", "", "../etc/passwd", "/etc/passwd", "a\0b"])
def test_what_is_no_zone_is_told_as_one_line(name: str) -> None:
    assert len(problems(small={"prewarm": {"timezone": name}})) == 1
