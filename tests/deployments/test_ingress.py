"""What the ingress makes of its settings; the deployment itself is tested on a real Ray."""

import pytest
from starlette.requests import Request

from serve_app.deployments.ingress import Fingerprint, _authenticator, in_force
from serve_app.errors import SettingsError, Unauthorized
from serve_app.settings import Live
from tests.fakes import calibration
from tests.gateway.conftest import make_settings


@pytest.mark.parametrize(("live", "threshold"), [(Live(), 0.4), (Live(threshold=0.7), 0.7), (Live(threshold=0.0), 0.0)])
def test_auto_takes_the_calibrations_threshold(live: Live, threshold: float) -> None:
    assert in_force(live, calibration(threshold=0.4)).policy.threshold == threshold


def test_the_heuristic_follows_the_live_settings() -> None:
    assert in_force(Live(math_code_heuristic=False), calibration()).policy.math_code_heuristic is False


def test_equal_prompts_have_equal_fingerprints_under_one_key_only() -> None:
    one, other = Fingerprint("key"), Fingerprint("other")
    assert one("hello") == one("hello") != one("hello ")
    assert one("hello") != other("hello")
    assert len(one("\ud800")) == 64


def request_with(header: str | None) -> Request:
    return Request({"type": "http", "headers": [] if header is None else [(b"authorization", header.encode())]})


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(auth={"mode": "keys"})
    monkeypatch.setenv("TIERWISE_API_KEYS", " one, two ,,")
    check = _authenticator(settings)
    check(request_with("Bearer one"))
    check(request_with("Bearer two"))
    for header in (None, "Bearer ", "Bearer one,two", "Bearer three"):
        with pytest.raises(Unauthorized):
            check(request_with(header))


@pytest.mark.parametrize("value", ["", " , "])
def test_an_endpoint_for_keys_without_a_key_does_not_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TIERWISE_API_KEYS", value)
    with pytest.raises(SettingsError, match="TIERWISE_API_KEYS holds no keys"):
        _authenticator(make_settings(auth={"mode": "keys"}))


def test_an_open_endpoint_asks_for_nothing() -> None:
    _authenticator(make_settings())(request_with(None))
