"""Early exit: whose answer is watched, what its tokens say, and when that is doubt."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Client, Confidence, Decision, Mode, Reason, Tier
from serve_app.routing.cascade import WINDOW, Watch, asked, doubts, watches
from serve_app.settings import EarlyExit
from tests.fakes import make_request

ON = EarlyExit(enabled=True)
EASY = Decision(Tier.SMALL, Reason.SCORE_BELOW, threshold=0.65)
LOGPROBS = st.floats(-100.0, 0.0)
TOKENS = st.lists(st.tuples(LOGPROBS, st.floats(-100.0, 100.0)), min_size=1, max_size=40)


def seen(tokens: list[tuple[float, float]], most: int | None = None) -> Confidence:
    watch = Watch(most)
    watch.add(tokens)
    return watch.confidence()


# what the tokens say


def test_the_three_statistics_of_an_answer() -> None:
    confidence = seen([(-1.0, 2.0), (-2.0, 1.0), (-3.0, 0.0), (-4.0, -1.0), (0.0, 5.0), (0.0, 5.0)])
    assert confidence == Confidence(tokens=6, mean=-10 / 6, low=-2.5, margin=2.0)


def test_a_low_stretch_counts_wherever_it_stands() -> None:
    sure, unsure = [(0.0, 9.0)] * WINDOW, [(-3.0, 0.0)] * WINDOW
    for tokens in (unsure + sure + sure, sure + unsure + sure, sure + sure + unsure):
        assert seen(tokens).low == -3.0


def test_an_answer_shorter_than_the_window_is_its_own_low() -> None:
    assert seen([(-1.0, 0.5), (-2.0, 1.5)]) == Confidence(tokens=2, mean=-1.5, low=-1.5, margin=1.0)


def test_before_the_first_token_nothing_is_known() -> None:
    assert Watch().confidence() == Confidence(0, 0.0, 0.0, 0.0)


@given(TOKENS)
def test_low_is_the_lowest_mean_of_any_few_in_a_row(tokens: list[tuple[float, float]]) -> None:
    values = [logprob for logprob, _ in tokens]
    means = [sum(values[i : i + WINDOW]) / WINDOW for i in range(len(values) - WINDOW + 1)] or [sum(values) / len(values)]
    assert math.isclose(seen(tokens).low, min(means), abs_tol=1e-9)


@given(TOKENS, st.integers(1, 40), st.data())
def test_how_the_tokens_arrive_does_not_matter(tokens: list[tuple[float, float]], most: int, data: st.DataObject) -> None:
    """An engine's events hold any number of tokens; those beyond `most` must not count, or a threshold would mean nothing."""
    at = data.draw(st.integers(0, len(tokens)))
    watch = Watch(most)
    watch.add(tokens[:at])
    watch.add(tokens[at:])
    assert watch.confidence() == seen(tokens[:most])
    assert watch.full == (len(tokens) >= most)


def test_without_a_bound_a_watch_is_never_full() -> None:
    watch = Watch()
    watch.add([(-1.0, 0.0)] * 1000)
    assert (watch.full, watch.tokens) == (False, 1000)


# when that is doubt


@pytest.mark.parametrize("statistic", ["mean", "low", "margin"])
def test_only_the_chosen_statistic_is_held_against_the_threshold(statistic: str) -> None:
    settings = EarlyExit.model_validate({"enabled": True, "statistic": statistic, "threshold": -1.0})
    sure = Confidence(tokens=4, mean=0.0, low=0.0, margin=0.0)
    others = Confidence(tokens=4, mean=-9.0, low=-9.0, margin=-9.0)
    assert doubts(replace(sure, **{statistic: -1.001}), settings)
    assert not doubts(replace(others, **{statistic: -1.0}), settings)


def test_a_whole_answer_has_its_own_threshold_where_one_is_given() -> None:
    both = EarlyExit(enabled=True, threshold=-1.0, whole_threshold=-3.0)
    unsure = Confidence(tokens=4, mean=-2.0, low=0.0, margin=0.0)
    assert doubts(unsure, both)
    assert not doubts(unsure, both, whole=True)
    assert doubts(replace(unsure, mean=-3.001), both, whole=True)
    assert doubts(unsure, EarlyExit(enabled=True, threshold=-1.0), whole=True)
    assert doubts(replace(unsure, mean=-0.1), EarlyExit(enabled=True, threshold=-1.0, whole_threshold=0.0), whole=True)


def test_without_a_token_there_is_nothing_to_doubt() -> None:
    settings = EarlyExit(enabled=True, statistic="margin", threshold=2.0)
    assert doubts(Confidence(1, 0.0, 0.0, 0.0), settings)
    assert not doubts(Watch().confidence(), settings)


# whose answer is watched


@pytest.mark.parametrize(
    "decision",
    [
        EASY,
        replace(EASY, reason=Reason.CAPACITY, shift=0.1),
        replace(EASY, mode=Mode.CANARY),
        replace(EASY, mode=Mode.CANARY, chosen=Tier.SMALL),
    ],
)
def test_what_the_router_sends_small_is_watched(decision: Decision) -> None:
    assert watches(make_request(), decision, ON)


def test_early_exit_is_off_until_it_is_switched_on() -> None:
    assert not watches(make_request(), EASY, EarlyExit())


OTHER_REASONS = sorted(set(Reason) - {Reason.SCORE_BELOW, Reason.CAPACITY, Reason.NOVELTY})


@pytest.mark.parametrize("reason", OTHER_REASONS)
def test_what_went_small_for_another_reason_is_not_watched(reason: Reason) -> None:
    assert not watches(make_request(), replace(EASY, reason=reason), ON)


@pytest.mark.parametrize(
    "decision",
    [
        replace(EASY, tier=Tier.LARGE),
        replace(EASY, allowed=(Tier.SMALL,)),
        replace(EASY, mode=Mode.SHADOW),
        replace(EASY, mode=Mode.MIRROR),
        replace(EASY, mode=Mode.PROBE),
        replace(EASY, mode=Mode.CANARY, chosen=Tier.LARGE),
    ],
)
def test_what_may_not_go_large_is_not_watched(decision: Decision) -> None:
    assert not watches(make_request(), decision, ON)


def test_a_tier_or_a_key_that_was_named_is_kept() -> None:
    assert not watches(make_request(explicit_tier=Tier.SMALL), EASY, ON)
    assert not watches(make_request(client=Client(key="k", tiers=(Tier.SMALL,))), EASY, ON)
    assert watches(make_request(client=Client(key="k")), EASY, ON)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"echo": True},
        {"logprobs": True},
        {"logprobs": 0},  # a completion: the sampled tokens' own
        {"logprobs": 5},
        {"prompt": ["a", "b"]},
    ],
)
def test_what_was_not_tested_or_would_be_seen_is_not_watched(fields: dict[str, Any]) -> None:
    assert not watches(make_request(body=fields), EASY, ON)


@pytest.mark.parametrize(
    "fields", [{"n": 1}, {"n": None}, {"logprobs": False}, {"prompt": ["a"]}, {"prompt": "ab"}, {"echo": False}, {"max_tokens": 1}]
)
def test_a_field_that_asks_for_nothing_special_does_not_matter(fields: dict[str, Any]) -> None:
    assert watches(make_request(body=fields), EASY, ON)


def test_an_engine_is_asked_in_each_endpoints_words() -> None:
    body = {"stream": True, "top_logprobs": 0}
    assert asked("chat", body) == {"stream": True, "logprobs": True, "top_logprobs": 2}
    assert asked("completion", {"prompt": "a"}) == {"prompt": "a", "logprobs": 2}
    assert body == {"stream": True, "top_logprobs": 0}
