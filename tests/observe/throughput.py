"""How fast the ledger's store takes rows, and how fast it lists them: `python -m tests.observe.throughput URL [--rows N]`.

`postgresql` instead of a URL starts a server for it, with its settings as they come. Not a test: `docs/ledger.md` has its figures.
Rows are receipts of two attempts, as an ingress sends them, in batches of 500 (the setting's default); every batch is a commit.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import quantiles
from typing import Any

from serve_app.domain import DecisionQuery, Mode, Outcome, Reason, Tier
from serve_app.observe.receipt import receipt
from serve_app.observe.store import Store
from tests.observe import postgres
from tests.observe.common import record

BATCH = 500
START = 1_700_000_000.0
QUERIES: dict[str, dict[str, Any]] = {
    "the newest": {},
    "one tier": {"tier": "small"},
    "a rare outcome": {"outcome": "timeout"},
    "a reason that never was": {"reason": "novelty"},
    "a narrow score": {"min_score": 0.6495, "max_score": 0.6505},
    "one key": {"key": "team-7"},
    "one session": {"session": "s-77"},
    "a key's rare outcome": {"key": "team-7", "outcome": "timeout"},
    "a day in the middle": {"since": 0.5, "until": 0.51},
}


def batches(rows: int, chance: random.Random) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, rows, BATCH):
        yield [one(number, chance) for number in range(first, min(rows, first + BATCH))]


def one(number: int, chance: random.Random) -> dict[str, Any]:
    score = round(chance.random(), 6)
    large = score >= 0.65
    made = record(f"tw-{chance.getrandbits(128):032x}", score=score, created=START + number / 10)
    reason = Reason.SCORE_ABOVE if large else Reason.SCORE_BELOW
    decision = replace(made.decision, tier=Tier.LARGE if large else Tier.SMALL, reason=reason, chosen=None, mode=Mode.NORMAL)
    outcome = Outcome.TIMEOUT if chance.random() < 0.0001 else Outcome.OK
    key, session = f"team-{chance.randrange(20)}", f"s-{chance.randrange(50_000)}"
    return receipt(replace(made, decision=decision, outcome=outcome, key=key, session=session))


def write(store: Store, rows: int) -> dict[str, float]:
    """Seconds are of the writing alone: making the rows is the script's own work."""
    took = []
    for batch in batches(rows, random.Random(0)):
        started = time.perf_counter()
        store.write(batch)
        took.append(time.perf_counter() - started)
    centiles = quantiles(took, n=100)
    return {"rows": rows, "rows_per_second": rows / sum(took), "batch_p50_ms": centiles[49] * 1000, "batch_p99_ms": centiles[98] * 1000}


def listing(store: Store, rows: int, tries: int = 5) -> dict[str, float]:
    """The slowest of a few tries of a page of 50, in milliseconds."""
    found = {}
    for name, query in QUERIES.items():
        filters = {part: START + value * rows / 10 if part in ("since", "until") else value for part, value in query.items()}
        took = []
        for _ in range(tries):
            started = time.perf_counter()
            store.page(DecisionQuery(limit=51, **filters))
            took.append((time.perf_counter() - started) * 1000)
        found[name] = max(took)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--only-list", action="store_true", help="a ledger of --rows decisions that is there already")
    given = parser.parse_args()
    if given.url != "postgresql":
        measure(given.url, given)
    elif (programs := postgres.binaries()) is not None:
        with postgres.running(programs, ["listen_addresses="]) as folder:  # all else as PostgreSQL comes: every commit is on the disk
            measure(postgres.new_database(folder, "ledger"), given)


def measure(url: str, given: argparse.Namespace) -> None:
    store = Store(url)
    written = {} if given.only_list else write(store, given.rows)
    print(json.dumps({**written, "page_ms": listing(store, given.rows)}, indent=1))
    store.close()


if __name__ == "__main__":
    main()
