"""A prompt unlike the fitted texts is marked, and near the threshold decided with a wider margin."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import NO_SCORE, Decision, Mode, Novel, Reason, Score, Tier
from serve_app.errors import CalibrationError
from serve_app.evaluate import labelled
from serve_app.routing import novelty
from serve_app.routing.policy import Policy, decide, in_conversation, in_mode, of_live, standing
from serve_app.settings import Live, NoveltySettings
from tests.fakes import make_request

LARGE = Policy(0.65, novelty=NoveltySettings(above=0.5, margin=0.1))
SMALL = Policy(0.65, novelty=NoveltySettings(above=0.5, margin=0.1, tier="small"))
FRACTION = st.floats(min_value=0.0, max_value=1.0)
PROMPTS = [row.prompt for row in labelled.packaged()][:600]
TEXTS = PROMPTS[::3]


def decided(policy: Policy, value: float | None, new: float | None, **request: Any) -> Decision:
    return decide(policy, make_request(**request), Score(value, novelty=new))


@pytest.mark.parametrize(
    ("policy", "value", "tier", "reason"),
    [
        (LARGE, 0.54, Tier.SMALL, Reason.SCORE_BELOW),
        (LARGE, 0.56, Tier.LARGE, Reason.NOVELTY),
        (LARGE, 0.65, Tier.LARGE, Reason.SCORE_ABOVE),
        (SMALL, 0.64, Tier.SMALL, Reason.SCORE_BELOW),
        (SMALL, 0.74, Tier.SMALL, Reason.NOVELTY),
        (SMALL, 0.76, Tier.LARGE, Reason.SCORE_ABOVE),
    ],
)
def test_novelty_is_the_reason_only_where_it_changed_the_tier(policy: Policy, value: float, tier: Tier, reason: Reason) -> None:
    decision = decided(policy, value, 0.9)
    assert (decision.tier, decision.reason, decision.threshold) == (tier, reason, 0.65)
    assert decision.novel == Novel(0.5, 0.1 if policy is LARGE else -0.1)


@pytest.mark.parametrize("new", [None, 0.0, 0.5])
def test_a_prompt_like_the_fitted_ones_is_neither_marked_nor_moved(new: float | None) -> None:
    decision = decided(LARGE, 0.6, new)
    assert (decision.tier, decision.reason, decision.novel) == (Tier.SMALL, Reason.SCORE_BELOW, None)


def test_a_novel_prompt_is_marked_also_where_the_rule_is_off() -> None:
    decision = decided(replace(LARGE, novelty=NoveltySettings(enabled=False, above=0.5)), 0.64, 0.9)
    assert (decision.tier, decision.novel) == (Tier.SMALL, Novel(0.5, 0.0))


def test_a_request_that_names_its_threshold_is_taken_at_its_word() -> None:
    decision = decided(LARGE, 0.64, 0.9, threshold=0.65)
    assert (decision.tier, decision.reason, decision.novel) == (Tier.SMALL, Reason.SCORE_BELOW, Novel(0.5, 0.0))


def test_without_a_score_there_is_nothing_to_move() -> None:
    assert decide(LARGE, make_request(), NO_SCORE).reason is Reason.FALLBACK_ROUTER_ERROR


def test_what_novelty_keeps_from_a_small_tier_that_capacity_chose_is_novelty() -> None:
    decision = decided(replace(LARGE, shift=0.05), 0.68, 0.9)
    assert (decision.tier, decision.reason) == (Tier.LARGE, Reason.NOVELTY)
    assert (decision.threshold, decision.shift) == (pytest.approx(0.7), pytest.approx(0.05))


@pytest.mark.parametrize(("new", "tier"), [(0.9, Tier.LARGE), (0.1, Tier.SMALL)])
def test_a_conversation_stays_where_novelty_sent_it(new: float, tier: Tier) -> None:
    before = standing(LARGE, make_request(), Score(0.6, novelty=new))
    assert in_conversation(decided(LARGE, 0.1, 0.0), before).tier is tier


def test_a_turn_that_could_not_be_scored_stands_for_nothing() -> None:
    assert standing(LARGE, make_request(), Score(None, novelty=0.9)) is None


def test_shadow_mode_keeps_a_choice_by_novelty_and_lets_the_default_tier_answer() -> None:
    shown = in_mode(decided(LARGE, 0.6, 0.9), make_request(), Live(mode="shadow", shadow_tier="small"))
    assert (shown.tier, shown.chosen, shown.mode) == (Tier.SMALL, Tier.LARGE, Mode.SHADOW)


@given(FRACTION, FRACTION, FRACTION, FRACTION)
def test_a_wider_margin_never_takes_a_prompt_from_its_tier(value: float, new: float, one: float, other: float) -> None:
    narrow, wide = (Policy(0.65, novelty=NoveltySettings(margin=margin)) for margin in sorted((one, other)))
    assert not (decided(narrow, value, new).tier is Tier.LARGE and decided(wide, value, new).tier is Tier.SMALL)


def test_the_live_settings_bring_their_rule() -> None:
    assert of_live(Live(), 0.4) == Policy(0.4, novelty=NoveltySettings())
    own = Live(threshold=0.7, math_code_heuristic=False, novelty=NoveltySettings(margin=0.3))
    assert of_live(own, 0.4, 0.1) == Policy(0.7, math_code_heuristic=False, shift=0.1, novelty=NoveltySettings(margin=0.3))


@pytest.fixture(scope="module")
def familiar() -> novelty.Familiar:
    fitted = novelty.fit(TEXTS, seed=1)
    assert fitted is not None
    return fitted


def test_ordinary_prompts_are_familiar_and_other_text_is_not(familiar: novelty.Familiar) -> None:
    held_out = [familiar.novelty(prompt) for prompt in PROMPTS[1::3]]
    assert np.mean([new > 0.25 for new in held_out]) < 0.05
    for text in ("ATCGGGATTACCAGGATCCA" * 20, "x" * 3000, "\U0001f98a\U0001f98a\U0001f98a"):
        assert familiar.novelty(text) > 0.5, text
    assert familiar.novelty(" \n") == 0.0


def test_what_is_familiar_is_the_same_bytes_each_time_and_survives_its_file(familiar: novelty.Familiar) -> None:
    again, other = novelty.fit(TEXTS, seed=1), novelty.fit(TEXTS, seed=2)
    assert again is not None
    assert other is not None
    arrays = familiar.arrays()
    assert all(again.arrays()[name].tobytes() == array.tobytes() for name, array in arrays.items())
    assert other.bound.tobytes() != familiar.bound.tobytes()
    read = novelty.read(arrays)
    assert read is not None
    assert read.novelty("x" * 300) == familiar.novelty("x" * 300)


def test_an_artefact_without_it_tells_no_novelty_and_too_few_rows_give_none() -> None:
    assert novelty.read({"simple": np.zeros(3)}) is None
    assert novelty.fit(TEXTS[:99], seed=0) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("bound", np.zeros(3)), ("bound", np.full(3, np.nan)), ("rarity", np.zeros(7)), ("scale", np.zeros(68)), ("middle", np.zeros(2))],
)
def test_numbers_that_mean_nothing_are_refused(familiar: novelty.Familiar, name: str, value: Any) -> None:
    with pytest.raises(CalibrationError, match="not a calibration artefact"):
        novelty.read({**familiar.arrays(), f"familiar_{name}": value})
