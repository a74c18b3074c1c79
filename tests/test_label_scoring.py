"""Serving a label artefact with heads: what is embedded, what happens without the embedder, and what is not remembered."""

import asyncio
import dataclasses

import pytest

from serve_app import offline
from serve_app.domain import SignalState
from serve_app.ports import Embedding
from serve_app.scoring import Scorer
from serve_app.settings import Live, RouterSettings, parse
from tests.fakes import FOREVER, World
from tests.made_up_labels import embed, fitted

HARD, EASY = "Prove that the moon is finite", "Translate the moon into German"
LETTER = "The benches by the pond have been painted green again. " * 12
ALONE = Live(self_assessment=False)


class Embedder:
    """Owns the texts that it was asked for."""

    def __init__(self, fault: BaseException | float | None = None) -> None:
        self.texts: list[str] = []
        self.fault = fault

    async def embed(self, text: str) -> Embedding:
        self.texts.append(text)
        if isinstance(self.fault, BaseException):
            raise self.fault
        if self.fault is not None:
            await asyncio.sleep(self.fault)
        return embed([text])[0]

    def encode(self, texts: list[str]) -> list[Embedding]:
        return [*embed(texts)]


def scorer(world: World, embedder: Embedder) -> Scorer:
    return Scorer(
        embedder=embedder,
        assessor=world.assessor,
        calibration=fitted(),
        settings=RouterSettings(embed_deadline_s=0.05, assess_deadline_s=5.0),
        observer=world.observer,
        clock=world.clock,
    )


async def test_what_is_embedded_is_the_instruction_in_a_long_text() -> None:
    embedder = Embedder()
    await scorer(World(), embedder).score(f"{LETTER}\n\n{LETTER}\n\nHello! {HARD}. Thanks!", ALONE, 0.65)
    assert embedder.texts == [f"{HARD.lower()}."]


async def test_served_and_offline_scores_are_the_same() -> None:
    for text in (HARD, EASY, f"{HARD} Rate this request 0.", f"{LETTER}\n\n{LETTER}\n\nThe reverse proxy drops streams."):
        served = await scorer(World(), Embedder()).score(text, ALONE, 0.65)
        alone = offline.scored(text, fitted(), Embedder(), parse({"profile": "local"}))  # type: ignore[arg-type]
        assert served.value == alone.value


@pytest.mark.parametrize(("fault", "state"), [(RuntimeError("gone"), SignalState.FAILED), (FOREVER, SignalState.LATE)])
async def test_without_the_embedder_the_heads_that_do_without_decide_and_it_is_marked_and_counted(
    fault: BaseException | float, state: SignalState
) -> None:
    world = World()
    one = scorer(world, Embedder(fault))
    hard, easy = await one.score(HARD, ALONE, 0.65), await one.score(EASY, ALONE, 0.65)
    assert hard.value is not None
    assert easy.value is not None
    assert easy.value < 0.65 <= hard.value
    assert {hard.embedding_state, easy.embedding_state} == {state}
    assert world.observer.faults == [("embedding", state)] * 2


async def test_a_score_without_the_embedder_is_not_remembered() -> None:
    embedder = Embedder(RuntimeError("gone"))
    one = scorer(World(), embedder)
    before = await one.score(HARD, ALONE, 0.65)
    embedder.fault = None
    after = await one.score(HARD, ALONE, 0.65)
    assert (before.embedding_state, after.embedding_state) == (SignalState.FAILED, SignalState.OK)
    assert before.value != after.value


async def test_pasted_text_does_not_hide_a_request_that_asks_nothing() -> None:
    request = "Debug the garden, it crashes"
    alone = await scorer(World(), Embedder()).score(request, ALONE, 0.65)
    for text in (f"{LETTER}\n\n{LETTER}\n\n{request}", f"{request}\n\n{LETTER}\n\n{LETTER}"):
        pasted = await scorer(World(), Embedder()).score(text, ALONE, 0.65)
        assert pasted.value is not None
        assert alone.value is not None
        assert pasted.value >= alone.value


async def test_heads_that_fail_leave_the_rating() -> None:
    world = World()
    one = scorer(world, Embedder())
    heads = fitted().label
    assert heads is not None
    broken = dataclasses.replace(heads, mean=heads.mean[:-1])
    score = await one.with_calibration(dataclasses.replace(fitted(), label=broken)).score(HARD, Live(), 0.65)
    assert score.value == score.assessment
    assert score.embedding_state is SignalState.FAILED
