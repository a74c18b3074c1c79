"""What the tests of the pipeline share."""

import json
from typing import Any

from serve_app.domain import Features, Outcome, Record, Tier
from serve_app.settings import Timeouts
from tests.fakes import World

EASY, HARD = 0.1, 0.95
QUICK = Timeouts(request_s=0.02, first_token_s=0.02, between_tokens_s=0.02)
CODE = Features(chars=5, turns=1, code=True, math=False, asks_code=False, asks_math=False)


async def only_record(world: World) -> Record:
    """The one record, settled; the ledger and the observer got the same one."""
    await world.recorder.drain(1.0)
    assert len(world.ledger.records) == 1
    assert world.observer.records == world.ledger.records
    assert world.observer.attempts == list(world.ledger.records[0].attempts)
    return world.ledger.records[0]


def outcomes(record: Record) -> list[tuple[Tier, Outcome]]:
    return [(attempt.tier, attempt.outcome) for attempt in record.attempts]


def last_json(sent: str) -> dict[str, Any]:
    *_, last, done, rest = sent.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return json.loads(last.removeprefix("data: "))  # type: ignore[no-any-return]
