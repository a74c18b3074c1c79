"""Made-up golden runs, and real ones against the gateway over fakes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from serve_app.domain import Tier, Usage
from serve_app.evaluate import golden_live, labelled
from serve_app.evaluate.golden_live import Found, Wanted
from serve_app.evaluate.golden_live_answers import Answer, Arm, Receipt, Run
from serve_app.evaluate.golden_live_cost import charge
from serve_app.evaluate.golden_live_figures import Figures, figures
from serve_app.evaluate.labelled import Labelled
from tests.fakes import World, stream_script
from tests.gateway.conftest import make_app

REPO = Path(__file__).parents[2]
GOLDEN = labelled.split(labelled.packaged())[1]
HARD = frozenset(row.prompt[:200] for row in GOLDEN if row.expected_tier is Tier.LARGE)
ROWS = [Labelled(f"p{number}", f"prompt {number}", Tier.LARGE if number % 2 else Tier.SMALL) for number in range(8)]


def answer(name: str, arm: Arm, tier: Tier, *, at: float = 0.0, took: float = 1.0, cost: float = 1.0, **changes: Any) -> Answer:
    """An answer of 10 + 20 tokens whose first one came after half of the time."""
    usage = Usage(10, 20)
    told = Receipt(f"tw-{name}", tier, "score_below", 0.4, 0.65, 1, usage, cost, 8.0 - cost)
    whole = Answer(name, arm, at, at + took, first_token=took / 2, usage=usage, receipt=told, text=f"{tier} says")
    return replace(whole, **changes)


def failed(name: str, arm: Arm = Arm.ROUTED) -> Answer:
    return Answer(name, arm, 0.0, 1.0, failure="502 engine_error")


def a_run(*answers: Answer) -> Run:
    return Run(answers, len(answers))


def pairs(*, took: float = 1.0, baseline_took: float = 2.0, cost: float = 1.0) -> Run:
    """Every prompt goes where its label says; the times of both tiers grow from prompt to prompt in step."""
    made: list[Answer] = []
    for number, row in enumerate(ROWS):
        grown, at = 1.0 + number, 100.0 * number
        made.append(answer(row.id, Arm.ROUTED, row.expected_tier, at=at, took=took * grown, cost=cost))
        made.append(answer(row.id, Arm.ALL_LARGE, Tier.LARGE, at=at + 50, took=baseline_took * grown, cost=8.0))
    return a_run(*made)


def figures_of(run: Run, rows: Sequence[Labelled] = ROWS, rates: dict[str, float] | None = None) -> Figures:
    return figures(rows, run, charge(run, rates or {}), seed=0, resamples=100)


def make_world() -> World:
    """The router goes by the label; the small tier's answer has two tokens, the large one's three."""
    made = World()
    made.embedder.by_text = lambda text: 0.95 if text[:200] in HARD else 0.05
    made.small.script, made.large.script = stream_script("a", "b"), stream_script("a", "b", "c")
    return made


def transport(world: World, **args: Any) -> httpx.ASGITransport:
    return httpx.ASGITransport(make_app(world, **args), raise_app_exceptions=False)


def silent(_: int) -> Callable[[], None]:
    return lambda: None


def golden(world: World, ticking: golden_live.Ticking = silent, app: dict[str, Any] | None = None, **options: Any) -> Found:
    wanted = Wanted("http://localhost", **{"limit": 12, "config": REPO / "deployments.yaml", **options})
    return golden_live.run(wanted, os.environ, ticking, transport(world, **(app or {})))
