"""Routed traffic against all of it on the large tier, on real engines: throughput, latencies, cost, and how near the ideal it is.

With a share f_L on the large tier and a small request costing c_S/c_L of a large one, the same engines could at best answer
1 / (f_L + f_S * c_S/c_L) as many requests. c_S/c_L is measured in the same run, from all-small against all-large.
"""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from serve_app.bench import load
from serve_app.bench.contenders import Contender
from serve_app.bench.load import Figures, Load
from serve_app.errors import RequestError
from serve_app.evaluate import labelled

ANSWER_TOKENS = 48
REQUESTS = 60
CONCURRENCY = 16
LONGEST = 600  # characters: the demonstration engines hold 2,048 tokens


@dataclass(frozen=True, slots=True)
class Round:
    """One repeat: the same prompts routed, all large and all small, one after the other. Dollars of the routed and the all-large run."""

    routed: Figures
    large: Figures
    small: Figures
    share: float
    saved: float

    @property
    def gain(self) -> float:
        """Requests/s of the routed run over those of all large."""
        return self.routed.requests_s / self.large.requests_s

    @property
    def ideal(self) -> float:
        ratio = self.large.requests_s / self.small.requests_s
        return 1.0 / (self.share + (1.0 - self.share) * ratio)


def measure(contender: Contender, *, share: float, repeats: int, seed: int, say: Callable[[str], None]) -> list[Round]:
    """`share` of the prompts are such as the endpoint sends to the large tier. Raises `RequestError` when it finds too few."""
    prompts = mixture(contender, share, seed)
    rounds = []
    for repeat in range(repeats):
        found = {}
        for model in random.Random(seed + repeat).sample(["auto", "large", "small"], 3):
            found[model] = load.run(contender.url, model, prompts, Load(len(prompts), ANSWER_TOKENS, True, CONCURRENCY), contender.headers)
        one = Round(found["auto"], found["large"], found["small"], share, _saved(contender, len(prompts)))
        rounds.append(one)
        say(f"{repeat + 1}/{repeats} {share:.0%} large: {one.gain:.2f} x all large, ideal {one.ideal:.2f}")
    return rounds


def mixture(contender: Contender, share: float, seed: int) -> list[str]:
    """Prompts by the endpoint's own decisions, shuffled."""
    large, small = round(REQUESTS * share), REQUESTS - round(REQUESTS * share)
    some = [row.prompt for row in labelled.packaged() if len(row.prompt) <= LONGEST]
    random.Random(seed).shuffle(some)
    by_tier: dict[int, list[str]] = {1: [], 2: []}
    with httpx.Client(base_url=contender.url, headers=contender.headers, timeout=30.0) as client:
        for prompt in some:
            if len(by_tier[1]) >= small and len(by_tier[2]) >= large:
                break
            by_tier[client.post("/route", json={"prompt": prompt}).json()["tier"]].append(prompt)
    if len(by_tier[1]) < small or len(by_tier[2]) < large:
        raise RequestError(f"only {len(by_tier[1])} easy and {len(by_tier[2])} hard prompts were found for the mixture")
    chosen = by_tier[1][:small] + by_tier[2][:large]
    random.Random(seed).shuffle(chosen)
    return chosen


def _saved(contender: Contender, requests: int) -> float:
    """The part of the all-large price that the last routed run saved, by the ledger."""
    with httpx.Client(base_url=contender.url, headers=contender.headers, timeout=30.0) as client:
        rows = client.get("/v1/decisions", params={"limit": min(200, 3 * requests)}).json()["data"]
    routed = [row for row in rows if row["reason"] not in ("explicit_model", "explicit_tier")]
    all_large = sum(row["all_large_usd"] for row in routed)
    return 1.0 - sum(row["cost_usd"] for row in routed) / all_large if all_large else 0.0


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    """Medians over the repeats: ratios to all large, and the part of the ideal that was reached."""
    of: dict[str, Callable[[Round], float]] = {
        "requests_s": lambda one: one.gain,
        "ideal": lambda one: one.ideal,
        "of_ideal": lambda one: one.gain / one.ideal,
        "mean_latency": lambda one: one.routed.e2e_mean_ms / one.large.e2e_mean_ms,
        "p99_latency": lambda one: one.routed.e2e_p99_ms / one.large.e2e_p99_ms,
        "ttft_p50": lambda one: one.routed.ttft_p50_ms / one.large.ttft_p50_ms,
        "saved": lambda one: one.saved,
    }
    return {name: statistics.median(value(one) for one in rounds) for name, value in of.items()}
