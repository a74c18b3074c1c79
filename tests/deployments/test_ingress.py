"""What the ingress makes of its settings; the deployment itself is tested on a real Ray."""

import pytest

from serve_app.app import build
from serve_app.deployments.ingress import Fingerprint
from serve_app.routing.policy import of_live
from serve_app.settings import Live
from tests.fakes import make_request


@pytest.mark.parametrize(("live", "threshold"), [(Live(), 0.4), (Live(threshold=0.7), 0.7), (Live(threshold=0.0), 0.0)])
def test_auto_takes_the_calibrations_threshold(live: Live, threshold: float) -> None:
    assert of_live(live, 0.4).threshold == threshold


def test_capacity_moves_the_threshold_in_force() -> None:
    assert of_live(Live(threshold=0.6), 0.65, shift=0.1).effective_threshold(make_request()) == pytest.approx(0.7)


def test_the_heuristic_follows_the_live_settings() -> None:
    assert of_live(Live(math_code_heuristic=False), 0.65).math_code_heuristic is False


def test_equal_prompts_have_equal_fingerprints_under_one_key_only() -> None:
    one, other = Fingerprint("key"), Fingerprint("other")
    assert one("hello") == one("hello") != one("hello ")
    assert one("hello") != other("hello")
    assert len(one("\ud800")) == 64


def test_an_ingress_that_leaves_may_finish_its_longest_request() -> None:
    args = {"profile": "local", "timeouts": {"request_s": 240}}
    assert build(args)._bound_deployment._deployment_config.graceful_shutdown_timeout_s > 240
