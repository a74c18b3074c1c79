"""A novel prompt on the path: scored as any other, marked in its receipt, decided with a wider margin, counted."""

from dataclasses import replace

import numpy as np
import pytest

from serve_app import offline
from serve_app.domain import Reason, Tier
from serve_app.evaluate import labelled
from serve_app.observe.receipt import receipt
from serve_app.pipeline import Pipeline
from serve_app.routing import novelty, score
from serve_app.settings import Live, NoveltySettings, parse
from tests.fakes import World, calibration, embedding_for, make_request
from tests.pipelines import only_record

NEAR, FAR = 0.6, 0.5  # from the threshold 0.65, by the margin of 0.1
DNA = "ATCGGGATTACCAGGATCCA" * 20
ORDINARY = "Which river flows through Paris?"


@pytest.fixture(scope="module")
def artefact() -> score.Calibration:
    familiar = novelty.fit([row.prompt for row in labelled.packaged()][:600:3], seed=0)
    made = replace(calibration(), familiar=familiar)
    return replace(made, sha256=read_back(made).sha256)


def read_back(made: score.Calibration) -> score.Calibration:
    again = score.load(score.dump(made))
    assert isinstance(again, score.Calibration)
    return again


def routed_by(artefact: score.Calibration, value: float = 0.1, live: Live | None = None) -> tuple[World, Pipeline]:
    world = World(score=value, live=live or Live(self_assessment=False))
    pipeline = world.pipeline()
    world.scorer = world.scorer.with_calibration(artefact)
    return world, pipeline


@pytest.mark.parametrize(
    ("value", "text", "tier", "reason"),
    [
        (NEAR, DNA, Tier.LARGE, Reason.NOVELTY),
        (FAR, DNA, Tier.SMALL, Reason.SCORE_BELOW),
        (NEAR, ORDINARY, Tier.SMALL, Reason.SCORE_BELOW),
    ],
)
async def test_only_a_novel_prompt_near_the_threshold_changes_its_tier(
    artefact: score.Calibration, value: float, text: str, tier: Tier, reason: Reason
) -> None:
    world, pipeline = routed_by(artefact, value)
    answer = await pipeline.answer(make_request(text))
    assert (answer.decision.tier, answer.decision.reason) == (tier, reason)
    stored = receipt(await only_record(world))["decision"]
    assert stored["novel"] == ({"above": 0.25, "lowered": 0.1} if text is DNA else None)
    assert (stored["score"]["novelty"] > 0.25) is (text is DNA)


async def test_the_tool_loop_of_a_novel_prompt_is_told_as_one(artefact: score.Calibration) -> None:
    _, pipeline = routed_by(artefact, NEAR)
    assert (await pipeline.decide(make_request(DNA, tool_loop=True))).reason is Reason.TOOL_LOOP


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_turn_after_a_novel_one_stays_with_it(artefact: score.Calibration, enabled: bool) -> None:
    world, pipeline = routed_by(artefact, live=Live(self_assessment=False, novelty=NoveltySettings(enabled=enabled)))
    world.embedder.by_text = lambda text: NEAR if text == DNA else 0.1
    decision = await pipeline.decide(make_request("commit it", earlier=(DNA,)))
    assert decision.reason is (Reason.CONVERSATION if enabled else Reason.SCORE_BELOW)


async def test_novelty_that_cannot_be_told_fails_no_request(artefact: score.Calibration) -> None:
    assert artefact.familiar is not None
    broken = replace(artefact, familiar=replace(artefact.familiar, mean=np.zeros(3, dtype=np.float32)))
    _, pipeline = routed_by(broken, NEAR)
    decision = await pipeline.decide(make_request(DNA))
    assert (decision.tier, decision.score.value, decision.score.novelty) == (Tier.SMALL, NEAR, None)


def test_what_is_familiar_survives_the_artefacts_file_and_offline_scores_tell_it(artefact: score.Calibration) -> None:
    class OneScore:
        def encode(self, texts: list[str]) -> list[score.Vector]:
            return [embedding_for(NEAR) for _ in texts]

    again, settings = read_back(artefact), parse({"profile": "local"})
    told = offline.scored(DNA, again, OneScore(), settings)  # type: ignore[arg-type]
    assert told.novelty == pytest.approx(artefact.novelty(DNA), abs=1e-6)
    assert told.novelty is not None
    assert told.novelty > NoveltySettings().above
