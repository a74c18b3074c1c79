"""Tune: what another threshold would have done, held against the same arithmetic in Python."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from serve_app.domain import Tier
from serve_app.evaluate.history import from_file
from serve_app.evaluate.replay import replay
from serve_app.observe.cost import dollars
from serve_app.settings import TokenPrice
from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser
SMALL = TokenPrice(input=0.15, output=0.15)  # the profile's, which `/status` tells; the ledger's rows are at the fakes' prices


def set_threshold(visit: Visit, value: str) -> None:
    visit.page.fill("#threshold", value)


def test_the_slider_shows_cost_share_and_what_would_have_gone_elsewhere(visit: Visit) -> None:
    visit.traffic(30)
    page = visit.open("tune")
    expect(page.locator("#tune-state")).to_have_text("over 30 decisions")
    expect(page.locator("#tune-says")).to_contain_text("In force: 0.65. 33 % of these decisions went large")
    set_threshold(visit, "0.3")
    records = visit.world.ledger.records
    goes_large = [record for record in records if (record.decision.score.value or 0) >= 0.3]
    moved = [record for record in goes_large if record.decision.tier is Tier.SMALL]
    cost = sum(record.all_large_usd if record in goes_large else record.cost_usd for record in records) / len(records) * 1000
    expect(page.locator("#tune-figures .big").nth(0)).to_have_text(f"{cost * 100:.1f} ¢")
    expect(page.locator("#tune-figures .big").nth(2)).to_have_text(f"{len(goes_large) / len(records) * 100:.0f} %")
    expect(page.locator("#tune-says")).to_contain_text(f"{len(moved)} of these decisions elsewhere")
    expect(page.locator("#tune-flips tbody tr")).to_have_count(len(moved))
    expect(page.locator("#tune-yaml")).to_have_text("- name: Ingress\n  user_config:\n    threshold: 0.3\n", use_inner_text=True)
    assert "PATCH" not in str(visit.seen.asked)


def test_a_request_that_would_go_small_pays_the_small_price_for_its_tokens(visit: Visit) -> None:
    visit.traffic(3)
    page = visit.open("tune")
    expect(page.locator("#tune-state")).to_have_text("over 3 decisions")
    set_threshold(visit, "1")
    records = visit.world.ledger.records
    cost = sum(record.cost_usd if record.decision.tier is Tier.SMALL else dollars(record.usage, SMALL) for record in records) / 3 * 1000
    expect(page.locator("#tune-figures .big").nth(0)).to_have_text(f"{cost * 100:.2f} ¢")


def test_a_threshold_between_the_sliders_steps_is_shown_as_it_is_until_the_slider_moves(visit: Visit) -> None:
    visit.traffic(3)
    in_force(visit, 0.6534)
    page = visit.open("tune")
    expect(page.locator("#tune-says")).to_contain_text("In force: 0.65. 33 % of these decisions went large, at")
    expect(page.locator("#tune-command")).to_have_text("tierwise replay --write 0.6534")
    set_threshold(visit, "0.7")
    expect(page.locator("#tune-command")).to_have_text("tierwise replay --write 0.7")


def test_each_way_is_counted_where_another_threshold_was_in_force_when_they_were_made(visit: Visit) -> None:
    visit.traffic(30)
    in_force(visit, 0.0)
    page = visit.open("tune")
    expect(page.locator("#tune-state")).to_have_text("over 30 decisions")
    set_threshold(visit, "0.22")
    moved = sum(1 for record in visit.world.ledger.records if record.decision.tier is Tier.SMALL and record.decision.score.value >= 0.22)
    assert moved > 0
    expect(page.locator("#tune-flips")).to_contain_text(f"{moved} from small to large, those nearest")


def test_where_the_status_does_not_tell_the_threshold_in_force_a_requests_own_is_not_taken_for_it(visit: Visit) -> None:
    visit.traffic(3)
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
    visit.page.request.post(f"{visit.url}/v1/chat/completions", data=body, headers={"x-tierwise-threshold": "0.9"})
    in_force(visit, None)
    page = visit.open("tune")
    expect(page.locator("#tune-says")).to_contain_text("In force: 0.65.")


def in_force(visit: Visit, threshold: float | None) -> None:
    """What `/status` says of it; to a key that is no admin's it says nothing."""

    def told(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "threshold": threshold})

    visit.page.route("**/status", told)


def test_what_the_score_did_not_decide_stays_where_it_was(visit: Visit) -> None:
    hard, easy = ({"role": "user", "content": text} for text in ("Design a casino", "hello"))
    answer = {"role": "assistant", "content": "Done."}
    own = {"x-tierwise-threshold": "0.9"}
    for body, headers in (
        ({"messages": [easy], "model": "large"}, {}),
        ({"messages": [hard, answer, easy]}, {}),
        ({"messages": [easy]}, own),
    ):
        visit.page.request.post(f"{visit.url}/v1/chat/completions", data={**body, "stream": True}, headers=headers)
    assert [record.decision.reason for record in visit.world.ledger.records] == ["explicit_model", "conversation", "score_below"]
    page = visit.open("tune")
    expect(page.locator("#tune-state")).to_have_text("over 3 decisions")
    for value in ("0", "1"):
        set_threshold(visit, value)
        expect(page.locator("#tune-says")).to_contain_text("every one of these decisions would have been the same")


def test_labels_give_the_quality_and_a_bad_line_is_named(visit: Visit, tmp_path: Path) -> None:
    visit.traffic(12)
    page = visit.open("tune")
    expect(page.locator("#tune-quality")).to_contain_text("The ledger does not know which answers were good.")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "tw-1", "expected_tier": "small"}\n{"id": "tw-2", "expected_tier": "huge"}\n')
    page.set_input_files("#labels", bad)
    expect(page.locator("#labels-hint")).to_contain_text("Line 2 needs id")
    labels = [{"id": record.id, "expected_tier": "small"} for record in visit.world.ledger.records]
    good = tmp_path / "good.jsonl"
    good.write_text("\n".join(map(json.dumps, labels)))
    page.set_input_files("#labels", good)
    expect(page.locator("#labels-hint")).to_contain_text("12 of 12 labels belong to these decisions.")
    expect(page.locator("#tune-figures .big").nth(3)).to_have_text("67 %")
    set_threshold(visit, "1")
    expect(page.locator("#tune-figures .big").nth(3)).to_have_text("100 %")
    assert "100 %" in str(page.locator("#tune-quality svg").get_attribute("aria-label"))


def test_the_page_and_the_command_line_replay_alike(visit: Visit, tmp_path: Path) -> None:
    visit.traffic(40)
    page = visit.open("tune")
    listed = page.request.get(f"{visit.url}/v1/decisions?limit=500").json()["data"]
    doubted = next(row for row in listed if row["tier"] == "large")
    doubted |= {"cost_usd": doubted["cost_usd"] * 1.5, "reason": "escalated_low_confidence"}  # a small answer was paid too
    labels = [{"id": row["id"], "expected_tier": ("small", "large")[number % 2]} for number, row in enumerate(listed)]
    file = tmp_path / "decisions.jsonl"
    file.write_text("\n".join(map(json.dumps, listed)))
    history = from_file(file, outcomes={label["id"]: label for label in labels})
    thresholds = [0.0, 0.22, 0.3, 0.65, 1.0]
    points = {point.threshold: point for point in replay(history, thresholds, SMALL, resamples=16).points}
    ours = page.evaluate(
        """async ([rows, labels, prices, thresholds]) => {
            const { at, prepare } = await import("./page/replay.js");
            const items = prepare(rows, prices, new Map(labels.map((label) => [label.id, label])));
            return thresholds.map((threshold) => at(items, threshold));
        }""",
        [listed, labels, {"small": SMALL.model_dump()}, thresholds],
    )
    for threshold, found in zip(thresholds, ours, strict=True):
        point = points[threshold]
        assert found["cost"] == pytest.approx(point.usd.value)
        assert 1 - found["cost"] / found["allLarge"] == pytest.approx(point.saved.value)
        assert found["largeShare"] == pytest.approx(point.large_share.value)
        assert point.agreement is not None
        assert found["quality"] == pytest.approx(point.agreement.value)
        assert found["moved"] == point.to_large + point.to_small


def test_the_arrow_keys_move_the_threshold(visit: Visit) -> None:
    visit.traffic(3)
    page = visit.open("tune")
    expect(page.locator("#tune-state")).to_have_text("over 3 decisions")
    page.focus("#threshold")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#threshold-value")).to_have_text("0.64")
    expect(page.locator("#tune-yaml")).to_contain_text("threshold: 0.64")
    expect(page.locator("#tune-command")).to_have_text("tierwise replay --write 0.64")
