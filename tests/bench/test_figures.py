"""Figures of a comparison, without starting anything: medians, targets, the page."""

from dataclasses import replace

import pytest

from serve_app.bench import canned, overhead, page, targets
from serve_app.bench.load import Figures
from serve_app.bench.overhead import Block
from serve_app.bench.routed import Round, medians

FIGURES = Figures(1.0, 100.0, 1000.0, 5.0, 9.0, 10.0, 10.0, 20.0, 0)
NAMES = ("LiteLLM", "tierwise, default", "bare hop, default", "ray.serve.llm, default")


def blocks(cpu: dict[str, float], form: str = targets.UNARY, ttft: float = 5.0) -> list[Block]:
    return [Block(name, form, replace(FIGURES, ttft_p50_ms=ttft), cpu_ms, cpu_ms + 1, 300.0) for name, cpu_ms in cpu.items()]


def test_a_summary_holds_the_median_with_the_least_and_the_most() -> None:
    rows = overhead.summary([*blocks({"LiteLLM": 9.0}), *blocks({"LiteLLM": 11.0}), *blocks({"LiteLLM": 40.0})])
    assert [(row["contender"], row["repeats"]) for row in rows] == [("LiteLLM", 3)]
    assert rows[0]["cpu_ms"] == {"median": 11.0, "low": 9.0, "high": 40.0}


@pytest.mark.parametrize(("ours", "says"), [(4.9, "met"), (5.1, "**missed**")])
def test_half_of_litellms_cpu_is_the_border_of_that_target(ours: float, says: str) -> None:
    rows = overhead.summary(blocks(dict(zip(NAMES, (10.0, ours, 4.0, 4.0), strict=True))))
    verdicts = {one.what: one for one in targets.of_overhead(rows, "default")}
    assert verdicts["CPU per plain request over LiteLLM's (default)"].says == says
    assert verdicts["CPU per stream of 50 over LiteLLM's (default)"].says == "not measured"


def test_the_first_token_is_compared_with_the_same_ray_path_without_scoring() -> None:
    rows = overhead.summary(
        [*blocks({"tierwise, default": 5.0}, targets.ONE, ttft=16.0), *blocks({"bare hop, default": 5.0}, targets.ONE, ttft=4.0)]
    )
    verdict = targets.of_overhead(rows, "default")[-1]
    assert (verdict.found, verdict.says) == ("12.00 ms", "**missed**")


def test_the_ideal_counts_what_a_small_request_costs_of_a_large_one() -> None:
    large, small = replace(FIGURES, requests_s=1.0), replace(FIGURES, requests_s=5.0)
    one = Round(replace(FIGURES, requests_s=2.0), large, small, share=0.15, saved=0.7)
    assert one.ideal == pytest.approx(1 / (0.15 + 0.85 * 0.2))
    assert medians([one])["of_ideal"] == pytest.approx(2.0 / one.ideal)


def test_a_claim_that_is_only_partly_true_is_said_to_be_less() -> None:
    by_share = {"15%": dict.fromkeys(("saved", "mean_latency", "p99_latency", "ttft_p50"), 0.744) | {"requests_s": 2.0}}
    verdicts = {one.what: one.says for one in targets.claims(by_share)}
    assert verdicts == {
        "cost": "less than claimed",
        "mean latency": "less than claimed",
        "p99 latency": "less than claimed",
        "TTFT": "less than claimed",
        "requests/s": "less than claimed",
    }
    assert targets.claims({}) == []


def test_the_page_shows_each_form_and_says_what_was_not_measured() -> None:
    rows = overhead.summary(blocks(dict(zip(NAMES, (10.0, 4.0, 4.0, 4.0), strict=True))))
    verdicts = [*targets.of_overhead(rows, "default"), *targets.of_decisions([])]
    text = page.render(page.Results({"machine": "two cores"}, {"default": rows}, [], [], {}), verdicts, [], "What did not help.")
    assert "| LiteLLM | 10.0 [10.0, 10.0] |" in text
    assert "| decisions per CPU-second over RouteLLM's BERT | at least 100 x | - | not measured |" in text
    assert "Decisions alone" not in text
    assert text.rstrip().endswith("What did not help.")


def test_the_canned_stream_has_a_word_for_each_token_then_the_usage_then_the_end() -> None:
    events = list(canned.events("chatcmpl-1", "m", 3))
    assert len(events) == 6
    assert sum('"content":" ' in event for event in events) == 3
    assert '"completion_tokens":3' in events[-2]
    assert events[-1] == "data: [DONE]\n\n"
    assert len(canned.answer("chatcmpl-1", "m", 3)["choices"][0]["message"]["content"].split()) == 3


async def test_a_paced_stream_catches_up_after_a_delay() -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    began, at = loop.time(), []
    async for item in canned.paced(iter("abcd"), 0.05):
        at.append(loop.time() - began)
        if item == "a":
            await asyncio.sleep(0.1)  # as a slow reader
    assert at[1] >= 0.1
    assert at[2] - at[1] < 0.04  # what was due meanwhile came at once
    assert at[3] >= 0.15 - 0.005
