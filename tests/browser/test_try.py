"""Try: the decision while one types, the answer as it is written, the other tier's beside it."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from serve_app.errors import EngineFailed
from tests.browser.conftest import Visit, make_world, served, slow, visiting
from tests.fakes import stream_script
from tests.graph import wait_for

pytestmark = pytest.mark.browser
BROKEN = """() => {
    const asked = window.fetch;
    const pull = (stream) => stream.error(new TypeError("network error"));
    const broken = async () => new Response(new ReadableStream({ pull }));
    window.fetch = (path, options) => (path.includes("completions") ? broken() : asked(path, options));
}"""
ATTACK = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_an_easy_prompt_is_answered_small_with_its_score_its_cost_and_what_it_saved(visit: Visit) -> None:
    page = visit.open()
    visit.ask("What is a router?")
    expect(page.locator("#why .verdict")).to_have_text("Went to the small tier")
    expect(page.locator("#why .reason")).to_have_text("Its score 0.24 is below the threshold 0.65.")
    expect(page.locator("#why .facts")).to_contain_text("A threshold of 0.24 or less would send it to the large tier.")
    expect(page.locator("#why .scale")).to_have_attribute("aria-label", "Score 0.24 of 1; the threshold is 0.65")
    expect(page.locator(".answer .text")).to_have_text("A router passes packets on.")
    expect(page.locator(".account .tokens dd")).to_have_text("10 in, 6 out")
    expect(page.locator(".account .cost dd")).to_have_text("0.00055 ¢")  # (10 x 0.25 + 6 x 0.5) $ / 1e6
    expect(page.locator(".account .saved dd")).to_have_text("0.0017 ¢")
    expect(page.locator("#announce")).to_have_text("The small tier's answer is complete. Cost 0.00055 ¢, saved 0.0017 ¢.")
    bars = page.locator("#why .signal")
    expect(bars.nth(0).locator(".bar")).to_have_attribute("aria-label", "Embedding: 0.24 of 1")
    expect(bars.nth(1)).to_contain_text("not asked: it was not needed")


def test_the_score_is_shown_while_one_types_and_nothing_is_generated_for_it(visit: Visit) -> None:
    page = visit.open()
    page.locator("#prompt").press_sequentially("Could an honest person run a casino?", delay=1)
    expect(page.locator("#why .verdict")).to_have_text("Would go to the large tier")
    assert visit.seen.asked.count("/route") == 1
    assert visit.world.small.calls == visit.world.large.calls == []
    page.uncheck("#as-i-type")
    page.fill("#prompt", "What is a router?")
    page.wait_for_timeout(450)
    assert visit.seen.asked.count("/route") == 1


def test_the_other_tier_answers_beside_it_only_when_asked_and_says_its_cost_before(visit: Visit) -> None:
    page = visit.open()
    visit.ask("What is a router?")
    expect(page.locator("#compare")).to_have_text("Ask the large tier tooabout 0.0019 ¢ for an answer as long")  # at the profile's price
    assert visit.world.large.calls == []
    page.click("#compare button")
    expect(page.locator(".answer")).to_have_count(2)
    expect(page.locator("#compare")).to_have_text("The large tier's answer cost 2.9 times the small one's: 0.0016 ¢ against 0.00055 ¢.")
    expect(page.locator("#why .verdict")).to_have_text("Went to the small tier")
    assert len(visit.world.large.calls) == 1


def test_a_comparison_says_so_when_the_other_tier_broke_and_this_one_answered_in_its_place(visit: Visit) -> None:
    page = visit.open()
    visit.ask("Could an honest person run a casino?")
    visit.world.small.script = [EngineFailed("broken")]
    page.click("#compare button")
    expect(page.locator(".answer")).to_have_count(2)
    expect(page.locator("#compare .verdict")).to_contain_text("The small tier did not answer: the large tier did in its place, for ")
    assert len(visit.world.small.calls) == 1


def test_an_example_is_at_hand_and_scored_at_once(visit: Visit) -> None:
    page = visit.open()
    page.click("text=Prove that there are infinitely many primes.")
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#why .reason")).to_have_text("Code and mathematics always go to the large tier, whatever the score.")


def test_escape_stops_the_answer_and_the_engine(visit: Visit) -> None:
    slow(visit.world)
    page = visit.open()
    page.fill("#prompt", "What is a router?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".answer .text")).to_contain_text("word word")
    expect(page.locator("#why .verdict")).to_have_text("Went to the small tier")
    expect(page.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".answer .state")).to_have_text("stopped")
    expect(page.locator("#stop")).to_be_hidden()
    wait_for(lambda: visit.world.small.calls[0].closed, 3, "the engine to be stopped")


def test_text_of_a_prompt_and_of_a_model_stays_text(visit: Visit) -> None:
    visit.world.small.script = stream_script(ATTACK, "&lt;b&gt;")
    page = visit.open()
    visit.ask(ATTACK)
    assert page.locator(".answer .text").text_content() == f"{ATTACK}&lt;b&gt;"
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "tierwise"


def test_an_answer_that_fails_is_explained(visit: Visit) -> None:
    page = visit.open()
    visit.world.small.script = visit.world.large.script = [EngineFailed("The model failed to answer.")]
    page.fill("#prompt", "What is a router?")
    page.click("#send")
    expect(page.locator("#trouble")).to_have_text("The model failed to answer.")
    expect(page.locator(".answer .state")).to_have_text("failed")
    assert all("502" in complaint for complaint in visit.seen.complaints)  # the browser's own line for an answer that is an error
    visit.seen.complaints.clear()


def test_a_late_receipt_does_not_explain_the_next_question(visit: Visit) -> None:
    page, held = visit.open(), []

    def hold_the_first(route: Route) -> None:
        held.append(route)
        if len(held) > 1:
            route.fallback()

    page.route("**/v1/decisions/*", hold_the_first)
    visit.ask("Design a casino")
    wait_for(lambda: page.wait_for_timeout(10) or held, 3, "the first receipt to be asked for")
    visit.ask("What is a router?")
    expect(page.locator("#why .signal").first).to_be_visible()
    with page.expect_response("**/v1/decisions/*"):
        held[0].fallback()
    page.wait_for_timeout(100)
    expect(page.locator("#why .verdict")).to_have_text("Went to the small tier")


def test_a_connection_that_breaks_in_an_answer_is_explained(visit: Visit) -> None:
    page = visit.open()
    page.evaluate(BROKEN)
    page.fill("#prompt", "What is a router?")
    page.click("#send")
    expect(page.locator("#trouble")).to_have_text("The connection broke in the middle of the answer.")
    expect(page.locator(".answer .state")).to_have_text("failed")


# Keys


def keyed(browser: Browser, **options: Any) -> Any:
    world = make_world()
    keys = {"sk-boss": {"admin": True}, "sk-plain": {}, "sk-small": {"tiers": ["small"]}}
    return world, served(world, keys=keys), lambda url: visiting(browser, world, url, **options)


def give(visit: Visit, secret: str) -> None:
    visit.page.fill("#key", secret)
    with visit.page.expect_navigation():
        visit.page.click("#key-form >> text=Use it")


def test_a_missing_and_a_wrong_key_are_explained_and_a_right_one_is_kept_for_this_tab_only(browser: Browser) -> None:
    _, serving, tab = keyed(browser)
    with serving as url, tab(url) as visit:
        page = visit.open()
        trouble = page.locator("#trouble")
        expect(trouble).to_contain_text("This endpoint asks for an API key.")
        page.click("text=Give a key")
        give(visit, "sk-wrong")
        expect(trouble).to_contain_text("The endpoint does not know this API key.")
        page.click("text=Use another key")
        page.fill("#key", "ключ")
        page.click("#key-form >> text=Use it")
        expect(trouble).to_contain_text("That is no key")
        page.click("#key-button")
        give(visit, "sk-boss")
        expect(page.locator("#why .verdict")).to_have_text("Type, and see where it would go.")
        expect(trouble).to_be_empty()
        expect(page.locator("#as-i-type")).not_to_be_checked()  # a dry run counts as a request of the key
        assert page.evaluate("[sessionStorage['tierwise.key'], localStorage.length, document.cookie]") == ["sk-boss", 0, ""]
        visit.ask("What is a router?")
        assert all("401" in complaint for complaint in visit.seen.complaints)
        visit.seen.complaints.clear()


def test_a_key_that_is_no_admins_is_told_what_an_admin_key_would_show_and_what_it_may_not(browser: Browser) -> None:
    _, serving, tab = keyed(browser)
    with serving as url, tab(url) as visit:
        page = visit.open()
        page.evaluate("sessionStorage.setItem('tierwise.key', 'sk-small')")
        page.reload()
        visit.ask("What is a router?")
        expect(page.locator("#compare")).to_contain_text("about 0.0022 ¢")  # without prices: what the receipt says that large costs
        page.click("#compare button")
        expect(page.locator("#trouble")).to_contain_text("This API key may not use the large tier. Another key may.")
        page.click("#tab-live")
        expect(page.locator("#live-tiers")).to_contain_text("An admin key shows queues and replicas.")
        visit.seen.complaints.clear()
