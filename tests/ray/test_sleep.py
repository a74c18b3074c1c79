"""A large tier that sleeps, on real Ray and with the policy of deployments.yaml: it is woken by a request, and falls asleep again."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.graph import REPO, Graph, running, wait_for
from tests.ray.sleepy_graph import START_S

IDLE_S = 3.0


def sleepy_config() -> dict[str, Any]:
    """As deployments.yaml has it, with a large tier that may sleep, and shorter times."""
    config: dict[str, Any] = yaml.safe_load((REPO / "deployments.yaml").read_text())
    application = config["applications"][0]
    application["import_path"] = "tests.ray.sleepy_graph:build"
    application["args"] = {"profile": "local", "ingress": {"num_cpus": 0.1}, "waking": {"guess_s": 20.0, "max_wait_s": 60.0}}
    listed = {deployment["name"]: deployment for deployment in application["deployments"]}
    large = listed["LargeTier"]
    large["autoscaling_config"] |= {"min_replicas": 0, "metrics_interval_s": 0.5, "look_back_period_s": 1.0}
    large["user_config"]["scaling"] |= {"idle_s": IDLE_S, "cooldown_s": 1.0}
    application["deployments"] = [{"name": name, "num_replicas": 1} for name in ("Ingress", "SmallTier", "Ledger")] + [large]
    return config


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    with running(tmp_path_factory.mktemp("sleep"), sleepy_config(), timeout=100) as started:
        yield started


def large(graph: Graph) -> dict[str, Any]:
    return httpx.get(f"{graph.url}/status", timeout=5).json()["tiers"]["large"]


def ask(graph: Graph) -> httpx.Response:
    body = {"model": "large", "messages": [{"role": "user", "content": "one two three"}]}
    return httpx.post(f"{graph.url}/v1/chat/completions", json=body, timeout=60)


def test_a_tier_sleeps_until_a_request_comes_and_sleeps_again(graph: Graph) -> None:
    wait_for(lambda: large(graph)["state"] == "asleep", 10, "word from Serve")
    before = large(graph)
    assert (before["ready"], before["target"], before["eta_s"], before["replicas"]) == (False, 0, 20.0, 0)
    assert httpx.get(f"{graph.url}/ready", timeout=5).json()["tiers"]["large"] is True

    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(graph)))
    started = time.monotonic()
    waiting.start()
    wait_for(lambda: large(graph)["state"] == "starting", 10, "a start")
    during = large(graph)
    assert (during["held"], during["target"], during["replicas"]) == (1, 1, 0)
    assert 0 < during["eta_s"] < 20.0
    waiting.join(60)

    assert time.monotonic() - started > START_S
    assert (answers[0].status_code, answers[0].headers["x-tierwise-tier"], answers[0].headers["x-tierwise-reason"]) == (
        200,
        "large",
        "explicit_model",
    )
    after = large(graph)
    assert (after["state"], after["cold_start_s"], after["breaker"], after["held"]) == ("up", START_S, "closed", 0)
    wait_for(lambda: large(graph)["target"] == large(graph)["replicas"] == 1, 10, "word from Serve")
    wait_for(lambda: large(graph).get("eta_s") is None, 10, "the start to be over")
    assert large(graph)["state"] == "up"

    wait_for(lambda: large(graph)["state"] == "asleep", 30, "it to fall asleep")
    asleep = large(graph)
    assert asleep["cold_start_s"] == START_S
    assert START_S <= asleep["eta_s"] < 20.0
