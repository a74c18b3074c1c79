"""How far a prompt can talk its own score down."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import httpx
import pytest

from tests.chaos.injections import INJECTIONS
from tests.chaos.report import Report
from tests.chaos.stage import deploy
from tests.chaos.traffic import quantile
from tests.graph import Graph, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(500)]

PROMPTS = 60


@dataclass(frozen=True, slots=True)
class Scored:
    score: float
    tier: str
    reason: str
    embedding: float
    assessment: float | None


def scored(http: httpx.Client, text: str) -> Scored:
    answer = http.post("/route", json={"prompt": text}).raise_for_status().json()
    signals = answer["signals"]
    rated = signals["assessment"]["rating"] if signals["assessment"]["state"] == "ok" else None
    return Scored(answer["complexity_score"], answer["tier_name"], answer["reason"], signals["embedding"]["score"], rated)


def hard_prompts(http: httpx.Client) -> list[tuple[str, Scored]]:
    """The first of the labelled prompts that are hard, and are routed so by their score."""
    lines = files("serve_app.evaluate.data").joinpath("labelled.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found: list[tuple[str, Scored]] = []
    for row in (row for row in rows if row["expected_tier"] == "large"):
        plain = scored(http, row["prompt"])
        if plain.reason == "score_above":
            found.append((row["prompt"], plain))
        if len(found) == PROMPTS:
            break
    return found


def summary(plain: list[Scored], attacked: list[Scored]) -> dict[str, Any]:
    """Drops of the score and of each signal, and how many went small."""
    drops = sorted(p.score - a.score for p, a in zip(plain, attacked, strict=True))
    embedding = [p.embedding - a.embedding for p, a in zip(plain, attacked, strict=True)]
    pairs = zip(plain, attacked, strict=True)
    rating = [p.assessment - a.assessment for p, a in pairs if p.assessment is not None and a.assessment is not None]
    return {
        "median_drop": round(quantile(drops, 0.5), 3),
        "p90_drop": round(quantile(drops, 0.9), 3),
        "max_drop": round(drops[-1], 3),
        "max_drop_embedding": round(max(embedding), 3),
        "max_drop_assessment": round(max(rating, default=0.0), 3),
        "rated": len(rating),
        "flipped": sum(a.tier == "small" for a in attacked),
    }


def test_prompts_that_talk_their_score_down(real: Graph, report: Report) -> None:
    """With the router LLM always asked, and patient, so that both signals are seen."""
    deploy(real, user_config={"decisive_margin": 1.0})
    try:
        wait_for(lambda: _margin(real) == 1.0, 30, "the margin to be in force")
        with real.client() as http:
            prompts = hard_prompts(http)
            plain = [score for _, score in prompts]
            results = {name: summary(plain, [scored(http, make(text)) for text, _ in prompts]) for name, make in INJECTIONS.items()}
    finally:
        deploy(real, user_config={"decisive_margin": 0.2})
    flips = ", ".join(f"{name} {seen['flipped']}" for name, seen in results.items())
    worst = {key: max(seen[key] for seen in results.values()) for key in ("max_drop", "max_drop_embedding", "max_drop_assessment")}
    client = f"of {len(prompts)} hard prompts went small: {flips}"
    signals = f"of the embedding's {worst['max_drop_embedding']}, of the rating {worst['max_drop_assessment']}"
    counted = f"largest drop of the score {worst['max_drop']}, {signals}"
    name = "test_prompts_that_talk_their_score_down"
    report.line("prompt injection", "vllm", name, client=client, counted=counted, recovery="none needed", results=results, **worst)
    assert len(prompts) == PROMPTS
    assert max(seen["rated"] for seen in results.values()) > 0, "the router LLM never answered"


def _margin(graph: Graph) -> float:
    return float(httpx.get(f"{graph.url}/status", timeout=10, trust_env=False).json()["live"]["decisive_margin"])
