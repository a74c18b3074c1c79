"""A receipt says why: weights, what would have turned the decision, guards, and where the time went."""

from dataclasses import replace
from typing import Any

import pytest

from serve_app.domain import Decision, Mode, Novel, Reason, Score, SignalState, Tier
from serve_app.observe import why
from serve_app.observe.receipt import decided, receipt
from tests.observe.common import record

OK, SKIPPED, FAILED = SignalState.OK, SignalState.SKIPPED, SignalState.FAILED
BOTH = Score(0.5, 0.4, OK, 0.65, OK, "hash", 0.01, 0.02, embedding_weight=0.6)
ALONE = Score(0.9, 0.9, OK, None, SKIPPED, "hash")
SMALL = Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.62, BOTH)
LARGE = Decision(Tier.LARGE, Reason.SCORE_ABOVE, 0.65, ALONE)


def of(decision: Decision, **changes: Any) -> dict[str, Any]:
    return why.of(decided(replace(decision, **changes)))


def test_the_weights_and_values_of_the_signals_make_the_score() -> None:
    found = of(SMALL)["signals"]
    assert [(s["name"], s["value"], s["weight"], s["state"]) for s in found] == [
        ("embedding", 0.4, 0.6, "ok"),
        ("assessment", 0.65, 0.4, "ok"),
    ]
    assert sum(s["value"] * s["weight"] for s in found) == pytest.approx(BOTH.value)


def test_a_signal_alone_has_all_the_weight() -> None:
    assert [s["weight"] for s in of(LARGE)["signals"]] == [1.0, 0.0]
    rated = Score(0.7, None, FAILED, 0.7, OK, "hash")
    assert [s["weight"] for s in of(LARGE, score=rated)["signals"]] == [0.0, 1.0]


def test_a_receipt_of_an_earlier_version_is_explained_without_weights() -> None:
    old = decided(SMALL)
    for name in ("embedding_weight", "novelty", "p_small", "p_large"):
        del old["score"][name]
    for name in ("guard_seconds", "conversation_seconds", "settings", "conversation", "shift", "chosen"):
        del old[name]
    assert [s["weight"] for s in why.of(old)["signals"]] == [None, None]
    assert why.of(old)["flip"] == {"to": "large", "threshold": {"at_most": 0.5}, "signals": {}}


def test_the_probabilities_of_a_gain_calibration_are_signals_too() -> None:
    gain = Score(0.3, calibration="hash", p_small=0.8, p_large=0.9, novelty=0.1)
    found = of(SMALL, score=gain)["signals"][2:]
    assert [(s["name"], s["value"], s["weight"]) for s in found] == [
        ("p_small_right", 0.8, None),
        ("p_large_right", 0.9, None),
        ("novelty", 0.1, None),
    ]


def test_the_threshold_that_turns_a_decision_is_the_score() -> None:
    assert of(LARGE)["flip"] == {"to": "small", "threshold": {"above": 0.9}, "signals": {"embedding": 0.65}}
    assert of(SMALL)["flip"]["threshold"] == {"at_most": 0.5}


def test_a_signal_turns_the_decision_where_the_score_meets_the_threshold() -> None:
    needed = of(SMALL)["flip"]["signals"]
    assert 0.6 * needed["embedding"] + 0.4 * 0.65 == pytest.approx(0.62)
    assert 0.6 * 0.4 + 0.4 * needed["assessment"] == pytest.approx(0.62)
    assert of(SMALL, threshold=0.99)["flip"]["signals"] == {}, "no value in [0, 1] does it"


def test_a_conversation_holds_a_turn_whatever_its_signals_say() -> None:
    found = of(SMALL, tier=Tier.LARGE, reason=Reason.CONVERSATION, conversation=0.8)["flip"]
    assert found == {"to": "small", "threshold": {"above": 0.8}, "signals": {}}
    easier = of(SMALL, conversation=0.55)
    assert easier["flip"]["threshold"] == {"at_most": 0.55}
    assert easier["signals"][-1] == {"name": "conversation", "value": 0.55, "weight": None}


def test_novelty_is_told_with_what_would_not_have_moved_the_threshold() -> None:
    score = replace(ALONE, value=0.6, embedding=0.6, novelty=0.8)
    found = of(LARGE, reason=Reason.NOVELTY, score=score, novel=Novel(0.25, 0.1))
    assert found["flip"] == {"to": "small", "threshold": {"above": 0.7}, "signals": {"embedding": 0.55, "novelty": 0.25}}
    assert found["signals"][-1] == {"name": "novelty", "value": 0.8, "weight": None}


def test_a_novel_prompt_below_the_moved_threshold_needs_that_much_less_to_go_large() -> None:
    found = of(SMALL, score=replace(BOTH, novelty=0.8), novel=Novel(0.25, 0.1))["flip"]
    assert found["threshold"] == {"at_most": 0.6}
    assert 0.6 * found["signals"]["embedding"] + 0.4 * 0.65 == pytest.approx(0.52)


def test_capacity_is_told_and_does_not_move_what_a_conversation_needs() -> None:
    found = of(SMALL, threshold=0.72, shift=0.1, conversation=0.5)
    assert found["signals"][-1] == {"name": "capacity", "value": 0.1, "weight": None}
    assert found["flip"]["threshold"] == {"at_most": 0.6}


def test_in_shadow_mode_the_routers_own_choice_is_what_turns() -> None:
    assert of(SMALL, tier=Tier.LARGE, mode=Mode.SHADOW, chosen=Tier.SMALL)["flip"]["to"] == "large"


@pytest.mark.parametrize("reason", [Reason.EXPLICIT_MODEL, Reason.HEURISTIC_MATH_CODE, Reason.FALLBACK_ROUTER_ERROR, Reason.GUARD_CONTEXT])
def test_nothing_turns_what_no_score_decided(reason: Reason) -> None:
    assert of(LARGE, reason=reason)["flip"] is None
    assert of(LARGE, reason=reason)["guards"]["reason"] == ("guard_context" if reason is Reason.GUARD_CONTEXT else None)


def test_the_receipt_tells_the_seconds_of_every_stage() -> None:
    made = replace(record("tw-1"), decision=replace(SMALL, guard_seconds=0.003, conversation_seconds=0.004))
    found = why.explained(receipt(made))
    stages = found["why"]["stages"]
    assert (stages["guards"], stages["embedding"], stages["assessment"], stages["conversation"]) == (0.003, 0.01, 0.02, 0.004)
    assert (stages["decision"], stages["total"]) == (0.02, 3.0)
    assert stages["attempts"][1] == {"tier": "large", "started": 2.0, "first_token": 2.5, "ended": 3.0}
    assert {**found, "why": None} == {**receipt(made), "why": None}, "nothing else changes"
