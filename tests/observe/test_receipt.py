"""Receipts as plain data."""

from dataclasses import asdict

import pytest

from serve_app.domain import Decision, Mode, Reason, Record, Tier, Trace
from serve_app.observe.receipt import decided, plain, receipt, row
from tests.observe.common import PROMPT, record

RECORDS = {
    "two attempts": record("a"),
    "none": record("b", attempts=0),
    "a trace": record("c", trace=Trace("ab" * 16, None, "cd" * 8, sampled=True)),
}


@pytest.mark.parametrize("made", RECORDS.values(), ids=RECORDS)
def test_plain_data_is_what_the_standard_library_makes_of_a_record(made: Record) -> None:
    assert plain(made) == asdict(made)
    assert list(plain(made)) == list(asdict(made))


def test_a_receipt_says_what_follows_from_its_record_and_never_the_prompt() -> None:
    made = record("a", prompt=PROMPT)
    shown = receipt(made)
    assert "prompt" not in shown
    assert shown["saved_usd"] == made.saved_usd
    assert shown["usage"] == {"prompt_tokens": 10, "completion_tokens": 20, "cached_tokens": 4, "total_tokens": 30}
    assert shown["decision"] == decided(made.decision)
    assert {name: value for name, value in row(made).items() if name != "prompt"} == shown


def test_a_decision_names_its_margin_and_the_tiers_that_were_allowed() -> None:
    decision = Decision(Tier.LARGE, Reason.GUARD_CAPABILITY, 0.65, record("a").decision.score, Mode.NORMAL, allowed=(Tier.LARGE,))
    assert decided(decision) == {**asdict(decision), "margin": decision.margin, "allowed": ["large"]}
    assert decided(decision)["margin"] == pytest.approx(0.05)
