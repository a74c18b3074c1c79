"""The small model doubts itself: what is thrown away never reaches a client, and what the watching costs."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from tests.chaos.books import Books
from tests.chaos.report import Report
from tests.chaos.requests import CHAT, EASY
from tests.chaos.stage import deploy
from tests.chaos.traffic import quantile
from tests.graph import Graph, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

ROUNDS, EACH = 4, 15
NEVER, ALWAYS = -1000.0, 0.0  # thresholds of a mean log-probability: it is never below the one, and below the other
SMALL_ALWAYS = {"x-tierwise-threshold": "1"}


def switch(graph: Graph, *, enabled: bool, threshold: float = NEVER) -> None:
    """Put early exit into force."""
    wanted = {"enabled": enabled, "threshold": threshold}
    deploy(graph, user_config={"early_exit": wanted})

    def in_force() -> bool:
        live = httpx.get(f"{graph.url}/status", timeout=10, trust_env=False).json()["live"]["early_exit"]
        return {key: live[key] for key in wanted} == wanted

    wait_for(in_force, 30, "early exit to be in force")


def body(text: str, **options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 32, "temperature": 0.0, **options}


def streamed(http: httpx.Client, text: str) -> tuple[float, list[dict[str, Any]]]:
    """Seconds to the first token, and the parsed chunks."""
    started, first, pieces = time.monotonic(), 0.0, []
    with http.stream("POST", CHAT, json=body(text, stream=True), headers=SMALL_ALWAYS) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_text():
            first = first or time.monotonic() - started
            pieces.append(piece)
    lines = "".join(pieces).split("\n\n")
    assert lines[-2] == "data: [DONE]"
    return first, [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def said(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def test_an_escalated_answer_is_the_large_models_alone(real: Graph, report: Report) -> None:
    books = Books(real)
    before = books.page()
    switch(real, enabled=True, threshold=ALWAYS)
    texts = [f"{EASY} ({number})" for number in range(10)]
    gone: list[float] = []
    try:
        with real.client() as http:
            for text in texts:
                _, chunks = streamed(http, text)
                ended = time.monotonic()
                assert {chunk["model"] for chunk in chunks} == {"tiny-llama-large"}
                assert (chunks[-1]["tierwise"]["reason"], chunks[-1]["tierwise"]["attempts"]) == ("escalated_low_confidence", 2)
                wait_for(lambda: http.get("/status").json()["tiers"]["small"]["running"] == 0, 5, "the small engine to be free")
                gone.append(time.monotonic() - ended)
                alone = http.post(CHAT, json={**body(text), "model": "large"}).json()
                assert said(chunks) == alone["choices"][0]["message"]["content"]
    finally:
        switch(real, enabled=False)
    balance = books.balance(before, [])
    attempts = [receipt["attempts"] for receipt in books.receipts(before.at)]
    escalated = [both for both in attempts if len(both) == 2]
    counted = f"both attempts in each receipt; {'books even' if balance.even else f'books off: {balance.off}'}"
    line = {"client": f"{len(texts)} of {len(texts)} answers word for word the large model's own", "counted": counted}
    freed = f"small engine free {max(gone):.1f} s after the answer at most, as /status sees it"
    name = "test_an_escalated_answer_is_the_large_models_alone"
    report.line("early exit: the small model doubts", "vllm", name, **line, recovery=freed, off=balance.off)
    assert [[a["outcome"] for a in both] for both in escalated] == [["escalated", "ok"]] * len(texts)
    assert balance.even, balance


async def test_what_watching_costs_to_the_first_token(real: Graph, report: Report) -> None:
    taken: dict[bool, list[float]] = {False: [], True: []}
    try:
        for number in range(ROUNDS):
            for enabled in (False, True):
                await asyncio.to_thread(switch, real, enabled=enabled)
                with real.client() as http:
                    streamed(http, f"{EASY} (warm {number})")
                    taken[enabled] += [streamed(http, f"{EASY} ({number}-{i}-{enabled})")[0] for i in range(EACH)]
    finally:
        switch(real, enabled=False)
    figures = {
        f"{name}_p{share * 100:.0f}_ms": _ms(taken[on], share) for name, on in (("off", False), ("on", True)) for share in (0.5, 0.99)
    }
    client = (
        f"first token after {figures['on_p50_ms']:.0f} ms (p50) and {figures['on_p99_ms']:.0f} ms (p99) with 16 tokens held back, "
        f"{figures['off_p50_ms']:.0f} and {figures['off_p99_ms']:.0f} ms without"
    )
    name = "test_what_watching_costs_to_the_first_token"
    counted = f"{ROUNDS * EACH} streams each, in turns"
    report.line("early exit: watching, no doubt", "vllm", name, client=client, counted=counted, recovery="none needed", **figures)
    assert quantile(sorted(taken[True]), 0.5) > quantile(sorted(taken[False]), 0.5), "tokens that are held back take time"


def _ms(seconds: list[float], share: float) -> float:
    return round(quantile(sorted(seconds), share) * 1000, 1)
