"""The cost exporter's sums: restarts of what it reads, midnight, the fleet's dollars and what they went into."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from serve_app.observe import exporter_books
from serve_app.observe.exporter_books import FORGET_AFTER, Books, State
from serve_app.observe.exporter_nodes import node, prices, rates, reserves
from tests.observe.exporter_pages import HOUR, NOON, counters, fleet, loads, page, reading, settings, text

ONE = "http://head/metrics"


def books(state: State | None = None, **exporter: Any) -> Books:
    of = settings(**exporter)
    return Books(of, prices(of), reserves(of), state)


def of_counters(at: float, worker: str = "w1", **counts: float) -> Any:
    return reading(at, {ONE: text(None, more=counters(worker=worker, **counts))})


def spent(of: Books, view: str = "fleet") -> dict[str, float]:
    return {
        name.removeprefix(f"usd/{view}/"): round(value, 6)
        for name, value in of.state.sums.items()
        if name.startswith(f"usd/{view}/") and value
    }


# --- counters


def test_what_was_there_before_the_first_reading_is_not_counted_and_what_comes_is() -> None:
    kept = books()
    kept.enter(of_counters(NOON, requests=100, small=5000))
    kept.enter(of_counters(NOON + 10, requests=103, small=5600))
    assert (kept.state.sums["requests"], kept.state.sums["tokens/small"]) == (3, 600)
    assert kept.state.sums["usd/tokens/small"] == pytest.approx(600 / 1e6)


def test_a_counter_that_starts_again_is_added_and_never_subtracted() -> None:
    kept = books()
    for at, requests in ((0, 10), (10, 15), (20, 2), (30, 4)):
        kept.enter(of_counters(NOON + at, requests=requests))
    assert kept.state.sums["requests"] == 5 + 2 + 2


def test_a_new_worker_counts_whole_and_the_old_one_is_not_counted_again_when_it_comes_back() -> None:
    kept = books()
    kept.enter(of_counters(NOON, requests=10))
    kept.enter(of_counters(NOON + 10, requests=7, worker="w2"))
    kept.enter(of_counters(NOON + 20, requests=11))
    assert kept.state.sums["requests"] == 7 + 1


def test_a_node_that_does_not_answer_for_long_is_not_counted_twice_afterwards() -> None:
    kept = books()
    kept.enter(of_counters(NOON, requests=10))
    for number in range(FORGET_AFTER + 2):
        kept.enter(reading(NOON + number, {ONE: None}))
    kept.enter(of_counters(NOON + 10_000, requests=12))
    assert kept.state.sums["requests"] == 2


def test_series_of_workers_that_are_gone_are_forgotten() -> None:
    kept = books()
    kept.enter(of_counters(NOON, requests=10))
    for number in range(FORGET_AFTER + 1):
        kept.enter(of_counters(NOON + number, requests=1, worker="w2"))
    assert len(kept.state.series) == len(counters())


def test_the_number_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_books, "MAX_SERIES", 4)
    kept = books()
    kept.enter(of_counters(NOON, requests=10, small=7))
    assert len(kept.state.series) == 4


def test_a_restart_of_the_exporter_counts_what_happened_meanwhile_once(tmp_path: Path) -> None:
    kept = books()
    kept.enter(of_counters(NOON, requests=10))
    kept.enter(of_counters(NOON + 10, requests=12))
    exporter_books.save(kept.state, tmp_path / "state.json")
    again = books(exporter_books.load(tmp_path / "state.json"))
    assert asdict(again.state) == asdict(kept.state)
    again.enter(of_counters(NOON + 60, requests=20))
    assert again.state.sums["requests"] == 10


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    assert exporter_books.load(tmp_path / "none.json") is None
    for content in ("[]", '{"format": 99}', "{"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=r"state|Expecting"):
            exporter_books.load(tmp_path / "bad.json")


@pytest.mark.parametrize(("zone", "today"), [("UTC", 8), ("America/New_York", 15)])
def test_today_begins_at_midnight_of_the_time_zone(zone: str, today: float) -> None:
    kept = books(timezone=zone)
    kept.enter(of_counters(NOON, requests=0))
    kept.enter(of_counters(NOON + 11.9 * HOUR, requests=7))
    kept.enter(of_counters(NOON + 12.1 * HOUR, requests=15))
    assert kept.today()["requests"] == today
    assert kept.state.sums["requests"] == 15


# --- the fleet


def test_machines_are_priced_by_the_resource_that_names_their_type() -> None:
    of = settings(instances={"m7i.xlarge": 0.2})
    known = prices(of)
    assert (known.date, known.usd_per_hour["g6e.12xlarge"]) == ("2026-02", 10.493)
    large = node(page(text("g6e.12xlarge", "LargeTier", gpus=4)), of, known)
    head = node(page(text("m7i.xlarge", "Ingress")), of, known)
    assert large is not None
    assert head is not None
    assert (large.instance, large.usd_per_hour, large.gpus, head.usd_per_hour) == ("g6e.12xlarge", 10.493, 4, 0.2)


def test_a_machine_without_a_name_is_known_by_its_shape_or_stays_without_a_price() -> None:
    of = settings()
    seen = [node(page(text(None, gpus=gpus, cpus=cpus)), of, prices(of)) for gpus, cpus in ((4, 48), (1, 4), (0, 8))]
    assert [machine and (machine.instance, machine.usd_per_hour) for machine in seen] == [
        ("g6e.12xlarge", 10.493),
        ("g6e.xlarge", 1.861),
        (None, None),
    ]


def test_an_address_that_is_no_node_is_none() -> None:
    of = settings()
    assert node(page("ray_dashboard_event_loop_tasks 3"), of, prices(of)) is None


def test_every_dollar_of_an_hour_has_one_item() -> None:
    of = settings(instances={"m7i.xlarge": 0.2})
    pages = {
        **fleet(),
        ONE: text("m7i.xlarge", "Ingress", "Ledger"),
        "http://d/metrics": text("g6e.12xlarge", "SmallTier", gpus=4, cpus=48),
    }
    machines = [machine for body in pages.values() if (machine := node(page(body), of, prices(of))) is not None]
    items = rates(machines, reserves(of))
    assert sum(items.values()) == pytest.approx(0.2 + 1.861 * 2 + 10.493 * 2)
    assert items["large"] == pytest.approx(10.493), "the embedder's CPUs beside its GPUs are not charged"
    assert items["router"] == pytest.approx(1.861)
    assert items["small"] == pytest.approx(1.861 + 10.493 / 4)
    assert items["unused"] == pytest.approx(10.493 * 3 / 4)
    assert items["gateway"] == pytest.approx(0.2)


@pytest.mark.parametrize(("gpus", "item"), [(4, "unused"), (0, "gateway")])
def test_a_machine_whose_engine_still_starts_is_unused_and_one_without_a_gpu_is_the_gateways(gpus: int, item: str) -> None:
    of = settings()
    machine = node(page(text("g6e.12xlarge", "Ingress", gpus=gpus, cpus=48)), of, prices(of))
    assert machine is not None
    assert rates([machine], reserves(of)) == {item: 10.493}


def test_an_idle_hour_is_idle_time_and_a_busy_one_is_not() -> None:
    kept = books()
    kept.enter(reading(NOON, fleet(head=loads())))
    kept.enter(reading(NOON + HOUR, fleet(head=loads(small=3))))
    assert spent(kept) == {"small": 1.861, "large_idle": 10.493, "router": 1.861}
    kept.enter(reading(NOON + 2 * HOUR, fleet(head=loads(large=2))))
    assert spent(kept) == {"small": 1.861, "small_idle": 1.861, "large": 10.493, "large_idle": 10.493, "router": 3.722}


def test_mirrors_are_charged_their_part_of_a_tiers_tokens() -> None:
    kept = books()
    mirrored = 'ray_tierwise_mirror_tokens_total{tier="large",kind="output"} '
    kept.enter(reading(NOON, fleet(head=(*counters(), mirrored + "0"))))
    kept.enter(reading(NOON + HOUR, fleet(head=(*counters(large=300), mirrored + "100", *loads(large=1)))))
    assert spent(kept)["mirrors"] == pytest.approx(10.493 / 4, abs=1e-6)
    assert spent(kept)["large"] == pytest.approx(10.493 * 3 / 4, abs=1e-6)


def test_a_silent_node_is_paid_for_until_the_gap_and_one_that_is_not_listed_is_gone() -> None:
    kept = books(gap_s=2 * HOUR)
    whole = fleet(head=loads())
    kept.enter(reading(NOON, whole))
    silent: dict[str, str | None] = {**whole, "http://c/metrics": None}
    for hours in (1, 2, 3, 4):
        kept.enter(reading(NOON + hours * HOUR, silent))
    assert spent(kept)["large_idle"] == pytest.approx(3 * 10.493), "at 3 hours it has been silent for more than the gap"
    kept.enter(reading(NOON + 5 * HOUR, {ONE: whole[ONE]}))
    kept.enter(reading(NOON + 6 * HOUR, {ONE: whole[ONE]}))
    assert spent(kept)["router"] == pytest.approx(5 * 1.861)


def test_a_gap_is_charged_up_to_its_bound_also_over_a_restart() -> None:
    kept = books(gap_s=HOUR)
    kept.enter(reading(NOON, fleet(head=loads())))
    again = books(kept.state, gap_s=HOUR)
    again.enter(reading(NOON + 5 * HOUR, fleet(head=loads())))
    assert spent(again)["router"] == pytest.approx(1.861)


def test_all_large_is_one_replica_while_one_would_do_and_more_when_the_small_tiers_traffic_would_not_fit() -> None:
    kept = books(utilisation=1.0)
    kept.enter(reading(NOON, fleet(head=(*counters(), *loads(large=64)))))
    # An hour at 64 sequences made 64,000 tokens on the large tier; the small tier made as many: together 128 of 128 sequences.
    kept.enter(reading(NOON + HOUR, fleet(head=(*counters(large=64_000, small=64_000), *loads(large=64)))))
    assert kept.state.sums["all_large/fleet"] == pytest.approx(10.493)
    # Five times that on the small tier would need three times the sequences of one replica.
    kept.enter(reading(NOON + 2 * HOUR, fleet(head=(*counters(large=128_000, small=384_000), *loads(large=64)))))
    assert kept.state.sums["all_large/fleet"] == pytest.approx(10.493 * (1 + 3))


def test_a_node_that_was_silent_at_the_first_reading_of_all_brings_no_past_along() -> None:
    kept, other = books(), "http://other/metrics"
    pages = {ONE: text(None, more=counters(worker="w1", requests=50)), other: None}
    kept.enter(reading(NOON, pages))
    pages = {ONE: text(None, more=counters(worker="w1", requests=51)), other: text(None, more=counters(worker="w2", requests=700))}
    kept.enter(reading(NOON + 10, pages))
    pages[other] = text(None, more=counters(worker="w2", requests=702))
    kept.enter(reading(NOON + 20, pages))
    assert kept.state.sums["requests"] == 1 + 2
