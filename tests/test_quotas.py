"""Requests, tokens and dollars of a key: what is let through, when to come again, and one count over several replicas."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from serve_app.deployments.quota_desk import QuotaDesk
from serve_app.domain import Attempt, Decision, Outcome, Reason, Record, Tier, Usage
from serve_app.errors import BudgetSpent, RateLimited
from serve_app.keys import Key
from serve_app.quotas import LONGEST_RETRY_S, Meter, QuotaBook, Quotas, estimate, month_left_s, month_start
from tests.fakes import until

MINUTE = datetime(2026, 5, 20, 12, 0, tzinfo=UTC).timestamp()  # a window's first second


def key(name: str = "a", **limits: Any) -> Key:
    return Key(id=name, sha256="0" * 64, **limits)


def record(request_id: str, tokens: int = 0, cost: float = 0.0, *, name: str | None = "a", created: float = MINUTE) -> Record:
    attempt = Attempt(Tier.SMALL, "m", Outcome.OK, Usage(0, tokens), cost, 0.0, None, 1.0)
    decision = Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65)
    return Record(request_id, created, "chat", False, decision, Outcome.OK, (attempt,), cost, cost, 0.0, 1.0, "", 0, key=name)


def admitted(quotas: Quotas, who: Key, count: int, now: float, *, tokens: int = 1, prefix: str = "r") -> int:
    """How many of `count` requests are let through."""
    through = 0
    for number in range(count):
        try:
            quotas.admit(who, f"{prefix}{number}-{now}", tokens, now)
            through += 1
        except RateLimited:
            pass
    return through


# One replica


def test_a_key_without_limits_is_never_refused() -> None:
    assert admitted(Quotas(), key(), 1000, MINUTE, tokens=10**6) == 1000


def test_requests_beyond_the_limit_are_refused_with_the_time_to_wait() -> None:
    quotas, who = Quotas(), key(requests_per_minute=10)
    assert admitted(quotas, who, 15, MINUTE + 15) == 10
    with pytest.raises(RateLimited, match="10 requests per minute") as caught:
        quotas.admit(who, "r", 1, MINUTE + 15)
    wait = caught.value.retry_after
    assert wait == pytest.approx(45 + 6)  # the next window, and a tenth of it: one of ten has slid out
    assert admitted(quotas, who, 1, MINUTE + 15 + wait - 0.1) == 0
    assert admitted(quotas, who, 2, MINUTE + 15 + wait + 0.001) == 1


@pytest.mark.parametrize("into", [0.0, 1.0, 20.0, 59.9])
@pytest.mark.parametrize(("current", "previous"), [(0, 10), (3, 10), (10, 0), (10, 10), (7, 5), (9, 1)])
@pytest.mark.parametrize("need", [1, 4, 10, 50])
def test_after_the_wait_there_is_room_and_a_moment_before_there_is_none(current: int, previous: int, need: int, into: float) -> None:
    meter = Meter(10, current, previous, into)
    wait = meter.wait_s(need)
    assert 0 <= wait <= 120

    def room(seconds: float) -> float:
        at = into + seconds
        later = Meter(10, current, previous, at) if at < 60 else Meter(10, 0, current if at < 120 else 0, at % 60)
        return 10 - later.load - min(need, 10)

    assert room(wait + 0.001) >= 0
    assert wait == 0 or room(wait - 0.01) < 0


def test_a_burst_at_the_edge_of_a_minute_is_not_let_through_twice() -> None:
    quotas, who = Quotas(), key(requests_per_minute=60)
    through = sum(admitted(quotas, who, 10, MINUTE + 55 + tenth / 10) for tenth in range(100))
    assert through <= 60 + 6  # what the limit gives in a minute, and in the five seconds of the next


def test_over_many_minutes_the_limit_is_kept_and_used() -> None:
    quotas, who = Quotas(), key(requests_per_minute=30)
    through = sum(admitted(quotas, who, 1, MINUTE + step / 2) for step in range(1200))  # 2 a second for 10 minutes
    assert 290 <= through <= 330


def test_a_refused_request_counts_nothing() -> None:
    quotas, who = Quotas(), key(requests_per_minute=1, tokens_per_minute=1000)
    admitted(quotas, who, 100, MINUTE, tokens=10)
    assert quotas.meters(who, MINUTE)["tokens"].load == 10
    assert quotas.meters(who, MINUTE)["requests"].load == 1


def test_tokens_are_reserved_and_replaced_by_what_was_used() -> None:
    quotas, who = Quotas(), key(tokens_per_minute=100)
    quotas.admit(who, "r1", 80, MINUTE)
    with pytest.raises(RateLimited, match="100 tokens per minute"):
        quotas.admit(who, "r2", 30, MINUTE)
    quotas.settle(record("r1", tokens=20), MINUTE + 1)
    assert quotas.meters(who, MINUTE + 1)["tokens"].load == 20
    quotas.admit(who, "r2", 30, MINUTE + 1)
    quotas.settle(record("r2", tokens=75), MINUTE + 2)
    assert quotas.meters(who, MINUTE + 2)["tokens"].load == 95


def test_a_request_without_a_record_gives_its_tokens_back_once() -> None:
    quotas, who = Quotas(), key(tokens_per_minute=100)
    quotas.admit(who, "r1", 80, MINUTE)
    quotas.release("r1", MINUTE)
    quotas.release("r1", MINUTE)
    assert quotas.meters(who, MINUTE)["tokens"].load == 0


def test_a_record_that_comes_after_the_release_is_counted() -> None:
    """Of a client that left, the engine says later what it had used."""
    quotas, who = Quotas(), key(tokens_per_minute=100)
    quotas.admit(who, "r1", 80, MINUTE)
    quotas.release("r1", MINUTE)
    quotas.settle(record("r1", tokens=7), MINUTE + 3)
    assert quotas.meters(who, MINUTE + 3)["tokens"].load == 7


def test_a_release_after_the_record_changes_nothing() -> None:
    quotas, who = Quotas(), key(tokens_per_minute=100)
    quotas.admit(who, "r1", 80, MINUTE)
    quotas.settle(record("r1", tokens=7), MINUTE)
    quotas.release("r1", MINUTE)
    assert quotas.meters(who, MINUTE)["tokens"].load == 7


def test_a_long_answer_is_counted_when_it_ends() -> None:
    """Its reservation's window is over: more than was reserved counts now, less is no credit."""
    quotas, who = Quotas(), key(tokens_per_minute=100)
    quotas.admit(who, "more", 10, MINUTE)
    quotas.admit(who, "less", 10, MINUTE)
    later = MINUTE + 300
    quotas.settle(record("more", tokens=60), later)
    quotas.settle(record("less", tokens=1), later)
    assert quotas.meters(who, later)["tokens"].load == 50


def test_less_than_was_reserved_is_given_back_where_it_was_taken() -> None:
    quotas, who = Quotas(), key(tokens_per_minute=100)
    quotas.admit(who, "r", 80, MINUTE + 59)
    quotas.settle(record("r", tokens=20), MINUTE + 61)
    meter = quotas.meters(who, MINUTE + 61)["tokens"]
    assert (meter.current, meter.previous) == (0, 20)


def test_an_estimate_larger_than_the_limit_waits_for_an_idle_key_and_is_not_shut_out() -> None:
    quotas, who = Quotas(), key(tokens_per_minute=100)
    quotas.admit(who, "r1", 5000, MINUTE)
    with pytest.raises(RateLimited):
        quotas.admit(who, "r2", 5000, MINUTE + 1)
    assert quotas.meters(who, MINUTE + 1)["tokens"].load == 100
    quotas.settle(record("r1", tokens=0), MINUTE + 2)
    quotas.admit(who, "r2", 5000, MINUTE + 3)


def test_keys_are_counted_apart() -> None:
    quotas = Quotas()
    assert admitted(quotas, key("a", requests_per_minute=2), 3, MINUTE) == 2
    assert admitted(quotas, key("b", requests_per_minute=2), 3, MINUTE, prefix="b") == 2


def test_a_key_that_is_removed_and_comes_back_finds_its_count() -> None:
    quotas, who = Quotas(), key(requests_per_minute=5)
    admitted(quotas, who, 4, MINUTE)
    quotas.keep([])
    quotas.merge({"others": [], "month": month_start(MINUTE), "spent": {}}, MINUTE)
    assert admitted(quotas, who, 4, MINUTE + 1) == 1


def test_a_changed_limit_meets_the_count_so_far() -> None:
    quotas = Quotas()
    assert admitted(quotas, key(requests_per_minute=5), 5, MINUTE) == 5
    assert admitted(quotas, key(requests_per_minute=7), 5, MINUTE, prefix="s") == 2
    assert admitted(quotas, key(requests_per_minute=3), 5, MINUTE, prefix="t") == 0
    assert quotas.meters(key(requests_per_minute=3), MINUTE)["requests"].remaining == 0


def test_what_is_over_is_forgotten() -> None:
    quotas = Quotas()
    for minute in range(50):
        for name in range(20):
            quotas.admit(key(f"k{minute}-{name}"), f"r{minute}-{name}", 1, MINUTE + 60 * minute)
            quotas.settle(record(f"r{minute}-{name}", 5, name=f"k{minute}-{name}"), MINUTE + 60 * minute)
    assert len(quotas._mine) <= 40
    assert quotas._running == {}


def test_a_clock_that_is_set_back_lets_nobody_through_again() -> None:
    quotas, who = Quotas(), key(requests_per_minute=5)
    admitted(quotas, who, 5, MINUTE + 60)
    assert admitted(quotas, who, 5, MINUTE + 30) == 0


@pytest.mark.parametrize(
    ("current", "previous", "into", "remaining", "reset"),
    [(0, 0, 10, 10, 0), (3, 0, 10, 7, 110), (0, 6, 30, 7, 30), (10, 10, 0, 0, 120), (2, 5, 30, 5, 90)],
)
def test_a_meter_tells_what_is_left_and_when_all_is_free(current: int, previous: int, into: float, remaining: int, reset: float) -> None:
    meter = Meter(10, current, previous, into)
    assert (meter.remaining, meter.reset_s) == (remaining, reset)


@pytest.mark.parametrize(("arguments", "tokens"), [((400, 50), 151), ((400, None), 357), ((0, 10, 3), 31)])
def test_an_estimate_is_a_quarter_of_the_characters_and_the_longest_answers(arguments: tuple[int, ...], tokens: int) -> None:
    assert estimate(*arguments) == tokens


# Dollars


def test_a_spent_budget_refuses_until_the_month_ends() -> None:
    quotas, who = Quotas(), key(monthly_budget_usd=1.0)
    last_hour = datetime(2026, 5, 31, 23, 0, tzinfo=UTC).timestamp()
    quotas.admit(who, "r1", 1, last_hour)
    quotas.settle(record("r1", cost=1.2), last_hour)
    with pytest.raises(BudgetSpent, match=r"\$1 for this month") as caught:
        quotas.admit(who, "r2", 1, last_hour)
    assert caught.value.retry_after == 3600
    quotas.admit(who, "r2", 1, last_hour + 3601)


def test_nobody_is_told_to_wait_for_weeks() -> None:
    quotas, who = Quotas(), key(monthly_budget_usd=1.0)
    quotas.settle(record("r1", cost=2.0), MINUTE)
    with pytest.raises(BudgetSpent) as caught:
        quotas.admit(who, "r2", 1, MINUTE)
    assert caught.value.retry_after == LONGEST_RETRY_S


@pytest.mark.parametrize(
    ("now", "start", "left"),
    [
        (datetime(2026, 2, 28, 12, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), 43_200),
        (datetime(2028, 2, 28, 12, tzinfo=UTC), datetime(2028, 2, 1, tzinfo=UTC), 43_200 + 86_400),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC), 1),
        (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC), 30 * 86_400),
    ],
)
def test_months_are_those_of_utc(now: datetime, start: datetime, left: float) -> None:
    assert (month_start(now.timestamp()), month_left_s(now.timestamp())) == (start.timestamp(), left)


# Several replicas and the ledger


class Fleet:
    """Ingress replicas and the ledger that they sync with; `spent` is what its database holds."""

    def __init__(self, replicas: int = 2) -> None:
        self.spent: dict[str, float] = {}
        self.book = QuotaBook()
        self.replicas = [Quotas() for _ in range(replicas)]

    def restart_ledger(self) -> None:
        self.book = QuotaBook()

    def record(self, made: Record, replica: int, now: float) -> None:
        self.replicas[replica].settle(made, now)
        self.commit(made, now)
        self.replicas[replica].acked(made)

    def commit(self, made: Record, now: float) -> None:
        self.book.spend([{"id": made.id, "key": made.key, "created": made.created, "cost_usd": made.cost_usd}], now)
        self.spent[made.key or ""] = self.spent.get(made.key or "", 0.0) + made.cost_usd

    def sync(self, now: float, *only: int, lost: bool = False, budgeted: tuple[str, ...] = ("a",)) -> None:
        for number in only or range(len(self.replicas)):
            quotas = self.replicas[number]
            others = self.book.exchange(str(number), quotas.report(now), now)
            if unread := self.book.unread(budgeted, now):
                self.book.read(dict(self.spent), unread, self.book.month)
            if not lost:
                quotas.merge({"others": others, "month": self.book.month, "spent": self.book.spent(budgeted)}, now)


def test_replicas_count_one_key_together() -> None:
    fleet, who = Fleet(3), key(requests_per_minute=9)
    assert [admitted(quotas, who, 3, MINUTE) for quotas in fleet.replicas] == [3, 3, 3]
    fleet.sync(MINUTE + 1)
    fleet.sync(MINUTE + 1)
    assert [admitted(quotas, who, 1, MINUTE + 2) for quotas in fleet.replicas] == [0, 0, 0]
    assert [quotas.meters(who, MINUTE + 2)["requests"].load for quotas in fleet.replicas] == [9, 9, 9]


def test_a_lost_answer_and_a_repeated_message_count_nothing_twice() -> None:
    fleet, who = Fleet(), key(requests_per_minute=100, tokens_per_minute=1000)
    admitted(fleet.replicas[0], who, 5, MINUTE, tokens=3)
    for _ in range(4):
        fleet.sync(MINUTE + 1, 0, lost=True)
    fleet.sync(MINUTE + 2)
    fleet.sync(MINUTE + 2)
    for quotas in fleet.replicas:
        meters = quotas.meters(who, MINUTE + 2)
        assert (meters["requests"].load, meters["tokens"].load) == (5, 15)


def test_a_ledger_that_was_away_knows_the_counts_again_after_one_exchange() -> None:
    fleet, who = Fleet(), key(requests_per_minute=100)
    for quotas in fleet.replicas:
        admitted(quotas, who, 10, MINUTE)
    fleet.sync(MINUTE + 1)
    fleet.restart_ledger()
    fleet.sync(MINUTE + 2)
    fleet.sync(MINUTE + 3)
    assert [quotas.meters(who, MINUTE + 3)["requests"].load for quotas in fleet.replicas] == [20, 20]


def test_without_the_ledger_a_replica_counts_on_with_what_it_knows() -> None:
    fleet, who = Fleet(), key(requests_per_minute=10)
    admitted(fleet.replicas[1], who, 4, MINUTE)
    fleet.sync(MINUTE + 1, 1)
    fleet.sync(MINUTE + 1, 0)
    assert admitted(fleet.replicas[0], who, 10, MINUTE + 30) == 6


def test_what_is_given_back_is_given_back_everywhere() -> None:
    fleet, who = Fleet(), key(tokens_per_minute=100)
    fleet.replicas[0].admit(who, "r", 90, MINUTE)
    fleet.sync(MINUTE + 1)
    assert admitted(fleet.replicas[1], who, 1, MINUTE + 1, tokens=20) == 0
    fleet.replicas[0].settle(record("r", tokens=5), MINUTE + 2)
    fleet.sync(MINUTE + 3)
    assert admitted(fleet.replicas[1], who, 1, MINUTE + 3, tokens=20) == 1


def test_a_replica_that_is_gone_is_still_counted_in_its_minutes_and_then_forgotten() -> None:
    fleet, who = Fleet(), key(requests_per_minute=10)
    admitted(fleet.replicas[1], who, 8, MINUTE)
    fleet.sync(MINUTE + 1)
    fleet.replicas.pop()
    fleet.sync(MINUTE + 30)
    assert admitted(fleet.replicas[0], who, 10, MINUTE + 30) == 2
    fleet.sync(MINUTE + 300)
    assert fleet.replicas[0].meters(who, MINUTE + 300)["requests"].load == 0
    assert fleet.book._replicas == {}


def test_the_month_starts_with_what_the_database_holds() -> None:
    fleet, who = Fleet(), key(monthly_budget_usd=1.0)
    fleet.spent = {"a": 0.7}
    fleet.sync(MINUTE)
    fleet.replicas[0].admit(who, "r1", 1, MINUTE)
    fleet.record(record("r1", cost=0.4), 0, MINUTE)
    fleet.sync(MINUTE + 1)
    for number, quotas in enumerate(fleet.replicas):
        assert quotas.spent("a") == pytest.approx(1.1)
        with pytest.raises(BudgetSpent):
            quotas.admit(who, f"s{number}", 1, MINUTE + 1)


def test_dollars_are_counted_once_through_every_exchange_and_a_new_ledger() -> None:
    fleet = Fleet()
    for number in range(20):
        now = MINUTE + number
        fleet.record(record(f"r{number}", cost=0.5, created=now), number % 2, now)
        if number == 10:
            fleet.restart_ledger()
        fleet.sync(now, lost=number % 3 == 0)
    fleet.sync(MINUTE + 30)
    assert [quotas.spent("a") for quotas in fleet.replicas] == pytest.approx([10.0, 10.0])


def test_dollars_of_a_replica_count_at_once_before_the_ledger_knows_them() -> None:
    quotas, who = Quotas(), key(monthly_budget_usd=1.0)
    quotas.report(MINUTE)
    quotas.settle(record("r", cost=1.5), MINUTE)
    quotas.merge({"others": [], "month": month_start(MINUTE), "spent": {"a": 0.1}}, MINUTE)
    with pytest.raises(BudgetSpent):
        quotas.admit(who, "s", 1, MINUTE)


def test_a_budget_holds_while_the_database_is_away() -> None:
    """The ledger answers what it knows; the records wait here, and no sum holds them."""
    fleet, who = Fleet(1), key(monthly_budget_usd=1.0)
    fleet.sync(MINUTE)
    made = [record(f"r{number}", cost=0.6) for number in range(2)]
    for one in made:
        fleet.replicas[0].settle(one, MINUTE)
    for second in range(1, 5):
        fleet.sync(MINUTE + second)
        with pytest.raises(BudgetSpent):
            fleet.replicas[0].admit(who, f"s{second}", 1, MINUTE + second)
    for one in made:
        fleet.commit(one, MINUTE + 5)
        fleet.replicas[0].acked(one)
    for second in (6, 7):
        fleet.sync(MINUTE + second)
        assert fleet.replicas[0].spent("a") == pytest.approx(1.2)


def test_what_is_acknowledged_after_the_question_is_let_go_with_the_next_answer() -> None:
    quotas, made = Quotas(), record("r", cost=0.5)
    quotas.settle(made, MINUTE)
    answer = {"others": [], "month": month_start(MINUTE), "spent": {"a": 0.0}}
    quotas.report(MINUTE)
    quotas.acked(made)
    quotas.merge(answer, MINUTE)
    assert quotas.spent("a") == 0.5
    quotas.report(MINUTE)
    quotas.merge({**answer, "spent": {}}, MINUTE)  # a new ledger, which has not read its database yet
    assert quotas.spent("a") == 0.5
    quotas.report(MINUTE)
    quotas.merge({**answer, "spent": {"a": 0.5}}, MINUTE)
    assert quotas.spent("a") == 0.5


def test_an_acknowledgement_from_the_month_before_takes_nothing_from_this_one() -> None:
    quotas, later = Quotas(), MINUTE + 20 * 86_400
    old, still_running = record("old", cost=0.5), record("long", cost=0.5)
    quotas.settle(old, MINUTE)
    quotas.settle(record("new", cost=0.3, created=later), later)
    quotas.settle(still_running, later)
    quotas.acked(old)
    quotas.acked(still_running)
    quotas.report(later)
    quotas.merge({"others": [], "month": month_start(later), "spent": {"a": 0.0}}, later)
    assert quotas.spent("a") == 0.3


def test_another_month_another_key_and_none_at_all_are_not_spent() -> None:
    book = QuotaBook()
    book.unread(["a"], MINUTE)
    book.read({}, ["a"], month_start(MINUTE))
    receipt = {"id": "r", "key": "a", "created": MINUTE, "cost_usd": 0.5}
    book.spend([receipt, {**receipt, "id": "old", "created": MINUTE - 40 * 86_400}, {**receipt, "id": "b", "key": "b"}], MINUTE)
    book.spend([{**receipt, "id": "none", "key": None}], MINUTE)
    assert book.spent(["a", "b"]) == {"a": 0.5}


def test_a_new_month_starts_at_nothing() -> None:
    fleet, who = Fleet(), key(monthly_budget_usd=1.0)
    fleet.spent = {"a": 5.0}
    fleet.sync(MINUTE)
    assert fleet.replicas[0].spent("a") == 5.0
    later = MINUTE + 20 * 86_400
    fleet.spent = {}
    fleet.replicas[0].admit(who, "r", 1, later)
    fleet.sync(later)
    assert fleet.replicas[0].spent("a") == 0.0


def test_an_answer_about_the_month_before_is_not_taken() -> None:
    quotas = Quotas()
    later = MINUTE + 20 * 86_400
    quotas.report(later)
    quotas.merge({"others": [], "month": month_start(MINUTE), "spent": {"a": 9.0}}, later)
    assert quotas.spent("a") == 0.0


def test_the_dollars_of_removed_keys_are_forgotten() -> None:
    fleet = Fleet(1)
    fleet.spent = {"a": 5.0, "b": 1.0}
    fleet.sync(MINUTE, budgeted=("a", "b"))
    fleet.replicas[0].keep(["b"])
    assert (fleet.replicas[0].spent("a"), fleet.replicas[0].spent("b")) == (0.0, 1.0)


def test_what_was_committed_before_the_sum_was_read_is_in_the_sum_alone() -> None:
    book = QuotaBook()
    assert book.unread(["a"], MINUTE) == ["a"]
    book.spend([{"id": "r", "key": "a", "created": MINUTE, "cost_usd": 0.5}], MINUTE)
    book.read({"a": 0.5}, ["a"], book.month)
    book.spend([{"id": "s", "key": "a", "created": MINUTE, "cost_usd": 0.25}], MINUTE)
    assert book.spent(["a"]) == {"a": 0.75}


def test_a_doubtful_commit_has_the_sums_read_anew() -> None:
    book = QuotaBook()
    book.unread(["a"], MINUTE)
    book.read({"a": 0.5}, ["a"], book.month)
    book.doubt()
    assert (book.spent(["a"]), book.unread(["a"], MINUTE)) == ({}, ["a"])
    book.read({"a": 0.75}, ["a"], book.month)
    assert book.spent(["a"]) == {"a": 0.75}


# The desk, whose database blocks and fails


@asynccontextmanager
async def at_once() -> AsyncIterator[None]:
    yield


async def test_the_desk_answers_before_the_database_does() -> None:
    asked: list[list[str]] = []

    def spent_since(keys: list[str], since: float) -> dict[str, float]:
        asked.append(keys)
        assert since == month_start(MINUTE)
        return {"a": 2.5}

    desk = QuotaDesk(spent_since, at_once)
    assert desk.sync("one", [], ["a"], MINUTE)["spent"] == {}
    await until(lambda: desk.sync("one", [], ["a"], MINUTE)["spent"] == {"a": 2.5})
    assert asked == [["a"]]


async def test_a_database_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [RuntimeError("secret url"), {"a": 1.0}]

    def spent_since(keys: list[str], since: float) -> dict[str, float]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    desk = QuotaDesk(spent_since, at_once)
    assert desk.sync("one", [["a", int(MINUTE // 60), 1, 1]], ["a"], MINUTE)["others"] == []
    await until(lambda: desk.sync("two", [], ["a"], MINUTE)["spent"] == {"a": 1.0})
    assert desk.sync("two", [], ["a"], MINUTE)["others"] == [["a", int(MINUTE // 60), 1, 1]]
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_the_database_is_read_between_two_batches() -> None:
    """A batch that is being committed would be in the sum or not, and nobody could tell."""
    writing, asked = asyncio.Lock(), 0

    @asynccontextmanager
    async def between_batches() -> AsyncIterator[None]:
        async with writing:
            yield

    def spent_since(keys: list[str], since: float) -> dict[str, float]:
        nonlocal asked
        asked += 1
        assert writing.locked()
        return {"a": 1.0}

    desk = QuotaDesk(spent_since, between_batches)
    async with writing:
        desk.sync("one", [], ["a"], MINUTE)
        await asyncio.sleep(0.02)
        desk.spend([{"id": "r", "key": "a", "created": MINUTE, "cost_usd": 0.25}], MINUTE)
        assert asked == 0
    await until(lambda: desk.sync("one", [], ["a"], MINUTE)["spent"] == {"a": 1.0})
    desk.spend([{"id": "s", "key": "a", "created": MINUTE, "cost_usd": 0.25}], MINUTE)
    assert desk.sync("one", [], ["a"], MINUTE)["spent"] == {"a": 1.25}
