"""The running graph as an operator sees it: status, golden prompts, a killed engine, metrics."""

import json
import os
import signal

import httpx
import psutil
import yaml

from tests.graph import Graph, wait_for

SIX = {"Ingress", "Embedder", "RouterLLM", "SmallTier", "LargeTier", "Ledger"}
# A regression floor of a sample, not a goal: docs/calibration.md says what was reached.
ACCURACY_FLOOR = 0.90


def at_the_threshold(graph: Graph, text: str) -> str:
    """The embedding's own score of `text`: with it as the threshold, the router LLM is always needed."""
    return str(httpx.post(f"{graph.url}/route", json={"prompt": text}, timeout=60).json()["signals"]["embedding"]["score"])


def assessment_state(graph: Graph, text: str, threshold: str) -> str:
    """What became of the router LLM's rating in one answered request."""
    headers = {"x-tierwise-threshold": threshold, "x-tierwise-debug": "true"}
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
    answer = httpx.post(f"{graph.url}/v1/chat/completions", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["tierwise"]["signals"]["assessment"]["state"])


def engine_of(graph: Graph, deployment: str) -> psutil.Process:
    """The engine core process below a deployment's replica."""
    for process in graph.processes():
        try:
            parent = process.parent()
            if "EngineCore" in " ".join(process.cmdline()) and parent is not None and deployment in " ".join(parent.cmdline()):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"no engine process of {deployment}")


def test_serve_status_shows_all_six_deployments_healthy(graph: Graph) -> None:
    status = yaml.safe_load(graph.run("serve", "status"))
    deployments = status["applications"]["tierwise"]["deployments"]
    assert {name: state["status"] for name, state in deployments.items()} == dict.fromkeys(SIX, "HEALTHY")


def test_golden_prompts_are_routed_by_the_running_graph(graph: Graph) -> None:
    report = json.loads(graph.run("tierwise", "golden", "--dry-run", "--limit", "240", "--url", graph.url, "--json", timeout=280))
    low, high = report["interval"]
    print(f"golden accuracy {report['accuracy']:.3f} ({low:.3f}-{high:.3f}) on {report['total']}")
    assert report["total"] == 240
    assert len(report["misses"]) == round((1 - report["accuracy"]) * report["total"])
    assert report["accuracy"] >= ACCURACY_FLOOR


def test_a_killed_router_engine_is_survived_marked_counted_and_replaced(graph: Graph) -> None:
    text = "how would you descale a kettle without vinegar?"
    threshold = at_the_threshold(graph, text)
    engine = engine_of(graph, "RouterLLM")
    before = graph.metric("ray_tierwise_signal_faults_total")
    os.kill(engine.pid, signal.SIGKILL)
    states = [assessment_state(graph, text, threshold) for _ in range(6)]
    assert set(states) <= {"failed", "late"}, states
    wait_for(lambda: graph.metric("ray_tierwise_signal_faults_total") >= before + 6, 40, "the faults to be counted")
    wait_for(lambda: assessment_state(graph, text, threshold) == "ok", 240, "the router LLM to come back")
    assert engine_of(graph, "RouterLLM").pid != engine.pid
