"""What the ledger's tests share: records of two attempts, pairs of answers, and a look into the database beside the store."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from serve_app.domain import Attempt, Decision, MirrorPair, Mode, Outcome, Reason, Record, Score, SignalState, Tier, Usage
from tests.fakes import PLAIN_FEATURES

PROMPT = {"messages": [{"role": "user", "content": "My pin is 4711."}]}


def pair(name: str, **changes: Any) -> MirrorPair:
    made_of = MirrorPair(
        decision_id=name,
        created=1_700_000_000.5,
        session="s-1",
        key="team-a",
        prompt=PROMPT,
        tier=Tier.SMALL,
        answer="Noted: 4711.",
        mirror_tier=Tier.LARGE,
        mirror_model="large-model",
        mirror_answer="I keep no pins.",
        mirror_usage=Usage(10, 5),
        mirror_cost_usd=0.00002,
    )
    return replace(made_of, **changes)


def record(name: str, *, attempts: int = 2, score: float | None = 0.7, **changes: Any) -> Record:
    made = Score(score, score, SignalState.OK, None, SignalState.LATE, "hash-of-calibration", 0.01, 0.25)
    tried = [
        Attempt(Tier.SMALL, "small-model", Outcome.TIMEOUT, Usage(), 0.0, 0.1, None, 2.0, "too slow"),
        Attempt(Tier.LARGE, "large-model", Outcome.OK, Usage(10, 20, 4), 0.00005, 2.0, 2.5, 3.0),
    ]
    made_of = Record(
        id=name,
        created=1_700_000_000.5,
        kind="chat",
        stream=True,
        decision=Decision(Tier.LARGE, Reason.FALLBACK_ENGINE_ERROR, 0.65, made, Mode.NORMAL, PLAIN_FEATURES, chosen=Tier.SMALL),
        outcome=Outcome.OK,
        attempts=tuple(tried[:attempts]),
        cost_usd=0.00005,
        all_large_usd=0.00006,
        overhead_seconds=0.02,
        total_seconds=3.0,
        prompt_hash="ab" * 32,
        prompt_chars=5,
        session="s-1",
        key="team-a",
    )
    return replace(made_of, **changes)


def query(url: str, text: str) -> list[dict[str, Any]]:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.text(text))]
    finally:
        engine.dispose()
