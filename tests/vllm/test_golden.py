"""A golden run against real engines: what it counts is what the ledger keeps."""

import os
from pathlib import Path

import httpx
import pytest

from serve_app.domain import Tier
from serve_app.evaluate import golden_live, golden_live_text, golden_page
from serve_app.evaluate.golden_live import Wanted
from serve_app.evaluate.golden_live_answers import Arm
from tests.graph import Graph

PROMPTS = 12


def test_a_golden_run_measures_both_arms_and_agrees_with_the_ledger(graph: Graph, tmp_path: Path) -> None:
    wanted = Wanted(graph.url, config=graph.config, limit=PROMPTS, max_tokens=12, out=tmp_path / "run.html")
    found = golden_live.run(wanted, os.environ, lambda _: lambda: None)
    assert [one.failure for one in found.run.failures] == []
    assert found.passed
    routed, large = found.run.of(Arm.ROUTED), found.run.of(Arm.ALL_LARGE)
    assert routed.keys() == large.keys()
    assert len(routed) == PROMPTS
    assert {one.receipt.tier for one in large.values() if one.receipt} == {Tier.LARGE}
    assert {one.receipt.tier for one in routed.values() if one.receipt} == set(Tier)
    assert found.figures.uneven == 0
    for one in found.run.answers:
        assert one.receipt is not None
        assert one.first_token is not None
        assert 0 < one.first_token <= one.seconds
        assert 0 < one.usage.completion_tokens <= 12
    _agrees_with_the_ledger(graph, found)
    saved = found.figures.dollars.saved
    assert saved is not None
    assert 0 < saved.value < 1
    assert set(found.figures.fleet.busy_s) == {"small", "large", "router"}
    assert found.figures.fleet.busy_s["large"] <= found.run.seconds
    assert wanted.out is not None
    golden_page.write(found, wanted.out)
    assert golden_live_text.accuracy(found) in "\n".join(golden_live_text.as_lines(found))


def _agrees_with_the_ledger(graph: Graph, found: golden_live.Found) -> None:
    for one in found.run.answers[:6]:
        assert one.receipt is not None
        stored = httpx.get(f"{graph.url}/v1/decisions/{one.receipt.decision_id}", timeout=30).json()
        assert stored["usage"]["completion_tokens"] == one.usage.completion_tokens
        assert stored["usage"]["prompt_tokens"] == one.usage.prompt_tokens
        assert stored["cost_usd"] == pytest.approx(one.receipt.cost_usd)
        assert stored["decision"]["tier"] == one.receipt.tier
