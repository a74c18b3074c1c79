"""Live: what happens is shown while somebody looks, and only then."""

from dataclasses import replace

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser
FIGURE = "#live-figures .figure:has-text('{}') .big"


def test_requests_of_others_are_shown_as_they_happen(visit: Visit) -> None:
    visit.traffic(30)
    page = visit.open("live")
    expect(page.locator(FIGURE.format("Requests"))).to_have_text("30")
    expect(page.locator(FIGURE.format("On the small tier"))).to_have_text("67 %")
    visit.world.large.known_load = None
    visit.world.large.is_ready = False
    expect(page.locator("#live-tiers .panel").nth(1)).to_contain_text("Its queues are unknown.")
    saved = sum(record.saved_usd for record in visit.world.ledger.records)
    expect(page.locator(FIGURE.format("Saved"))).to_have_text(f"{saved * 100:.3f} ¢")
    small = page.locator("#live-tiers .panel").nth(0)
    expect(small).to_contain_text("Running3 of 32")
    expect(small).to_contain_text("Waiting1")
    expect(page.locator("#live-rows tbody tr")).to_have_count(12)
    visit.traffic(1)
    expect(page.locator(FIGURE.format("Requests"))).to_have_text("31")


def test_nothing_is_asked_while_it_is_paused_or_nobody_looks(visit: Visit) -> None:
    visit.page.clock.install()
    page = visit.open("live")
    expect(page.locator(FIGURE.format("Requests"))).to_have_text("0")

    def polls() -> int:
        return visit.seen.asked.count("/status")

    with page.expect_request("**/status"):
        page.clock.run_for(2100)
    page.click("#live-pause")
    before = polls()
    page.clock.run_for(10_000)
    page.wait_for_timeout(100)
    assert polls() == before
    page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true})")
    page.click("#live-pause")
    page.clock.run_for(10_000)
    page.wait_for_timeout(100)
    assert polls() == before
    with page.expect_request("**/status"):
        page.evaluate("delete document.visibilityState; document.dispatchEvent(new Event('visibilitychange'))")
    page.click("#tab-tune")
    expect(page.locator("#tune-says")).to_contain_text("No decision is recorded yet.")
    before = polls()
    page.clock.run_for(10_000)
    page.wait_for_timeout(100)
    assert polls() == before


def test_a_row_opens_its_receipt_and_gives_the_focus_back(visit: Visit) -> None:
    visit.traffic(3)
    page = visit.open("live")
    row = page.locator("#live-rows button").nth(1)
    row.focus()
    opened = row.get_attribute("data-id")
    page.keyboard.press("Enter")
    receipt = page.locator("#receipt")
    expect(receipt).to_contain_text("Went to the small tier")
    expect(receipt).to_contain_text("10 in, 6 out")
    visit.traffic(1)
    expect(page.locator("#live-rows button")).to_have_count(4)  # the list was drawn anew behind it
    page.keyboard.press("Escape")
    expect(receipt).to_be_hidden()
    expect(page.locator(f"#live-rows [data-id={opened}]")).to_be_focused()


def test_a_long_answer_that_ends_after_later_ones_is_shown_too(visit: Visit) -> None:
    """A decision is stamped with its start and listed at its end."""
    visit.page.clock.install()
    visit.traffic(1)
    page = visit.open("live")
    expect(page.locator(FIGURE.format("Requests"))).to_have_text("1")
    records = visit.world.ledger.records
    records.append(replace(records[0], id="tw-long", created=records[0].created - 60))
    for _ in range(16):
        with page.expect_request("**/v1/decisions*"):
            page.clock.run_for(2100)
        page.wait_for_timeout(10)
    expect(page.locator(FIGURE.format("Requests"))).to_have_text("2")


def test_what_is_kept_is_bounded_in_time_and_number(visit: Visit) -> None:
    page = visit.open("live")
    kept = page.evaluate(
        """async () => {
            const { Window } = await import("./page/window.js");
            const seen = new Window();
            const same = { tier: "small", outcome: "ok", cost_usd: 1, all_large_usd: 3, total_seconds: 1, overhead_seconds: 0 };
            const row = (id, created) => ({ ...same, id, created });
            seen.add(Array.from({ length: 5000 }, (_, id) => row(id, 1000 + id / 100)), 1050);
            const full = [seen.rows.size, seen.cut, seen.newest];
            seen.add([row(9999, 1345)], 1350);
            return [full, seen.rows.size, seen.figures().saved, seen.buckets(1350).at(-1).small];
        }"""
    )
    assert kept == [[3000, True, 1049.99], 1, 2, 1]
