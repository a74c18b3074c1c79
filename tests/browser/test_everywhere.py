"""What holds in every view: keyboard alone, a phone's width, both colour schemes, names for screen readers, no other host."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Visit, make_world, served, visiting

pytestmark = pytest.mark.browser
VIEWS = ("try", "live", "tune")
CONTRAST = """(pairs) => {
    const light = ([r, g, b]) => [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const probe = document.body.appendChild(document.createElement("i"));
    const of = (name) => { probe.style.color = `var(${name})`; return light(getComputedStyle(probe).color.match(/[0-9.]+/g).map(Number)); };
    return pairs.map(([a, b]) => { const [x, y] = [of(a), of(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); });
}"""
TEXTS = [(ink, paper) for ink in ("--ink", "--soft", "--small", "--large", "--alert") for paper in ("--paper", "--card")]
NAMED = "button, input, select, textarea, dialog, [role=img], [role=region], [role=tabpanel]"
UNNAMED = """(named) => [...document.querySelectorAll(named)].filter((node) => {
    const by = document.getElementById(node.getAttribute("aria-labelledby"))?.textContent;
    const own = node.tagName === "BUTTON" && node.textContent.trim();
    return !(node.getAttribute("aria-label") || node.labels?.length || by || own);
}).map((node) => node.outerHTML.slice(0, 80))"""
WIDTHS = "[document.documentElement.scrollWidth, window.innerWidth]"


@contextmanager
def other(browser: Browser, **options: object) -> Iterator[Visit]:
    world = make_world()
    with served(world) as url, visiting(browser, world, url, **options) as visit:
        visit.traffic(6)
        yield visit


def through(visit: Visit) -> Iterator[str]:
    """Each view, with something in it."""
    page = visit.open("try")
    visit.ask("What is a router?")
    page.click("#compare button")
    expect(page.locator("#compare .verdict")).to_be_visible()
    yield "try"
    page.click("#tab-live")
    expect(page.locator("#live-rows tbody tr").nth(5)).to_be_visible()
    yield "live"
    page.click("#tab-tune")
    page.fill("#threshold", "0.21")
    expect(page.locator("#tune-flips")).not_to_be_empty()
    yield "tune"


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.open()
    focused = "document.activeElement.id"
    for name in ("", "tab-try", "key-button"):  # the link that skips the header, the one tab that is in the order, the key
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == name
    page.keyboard.press("Shift+Tab")
    for key, view in (("ArrowRight", "live"), ("End", "tune"), ("ArrowRight", "try"), ("ArrowLeft", "tune"), ("Home", "try")):
        page.keyboard.press(key)
        expect(page.locator(f"#view-{view}")).to_be_visible()
        assert page.evaluate(focused) == f"tab-{view}"
        assert page.evaluate("location.hash") == f"#{view}"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "prompt"
    page.keyboard.type("What is a router?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".answer .state")).to_have_text("done")
    for _ in range(20):
        if "Ask the" in page.evaluate("document.activeElement.textContent"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_count(2)


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser) -> None:
    with other(browser, viewport={"width": 375, "height": 740}, has_touch=True) as visit:
        for view in through(visit):
            wide, screen = visit.page.evaluate(WIDTHS)
            assert (view, wide <= screen) == (view, True)
        visit.page.click("#tab-live")
        visit.page.locator("#live-rows button").first.click()
        expect(visit.page.locator("#receipt")).to_contain_text("saved")
        assert visit.page.evaluate("document.getElementById('receipt').scrollWidth <= document.getElementById('receipt').clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_colour_schemes(browser: Browser, scheme: str) -> None:
    with other(browser, color_scheme=scheme, reduced_motion="reduce") as visit:
        page = visit.open()
        ratios = dict(zip(TEXTS, page.evaluate(CONTRAST, TEXTS), strict=True))
        assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}  # WCAG 2.2 AA
        brightness = sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")))
        assert (brightness < 128) is (scheme == "dark")
        assert page.evaluate("getComputedStyle(document.querySelector('.needle')).transitionDuration") == "0s"


def test_every_control_and_picture_has_a_name(visit: Visit) -> None:
    visit.traffic(6)
    for _ in through(visit):
        assert visit.page.evaluate(UNNAMED, NAMED) == []


def test_a_message_of_the_policy_would_be_noticed(visit: Visit) -> None:
    """The check on the console sees what it is there for: an inline handler is refused, and a string is no markup."""
    page = visit.open()
    refused = page.evaluate("() => { try { document.body.innerHTML = '<p>x</p>'; return 'taken'; } catch (error) { return error.name; } }")
    page.evaluate("fetch('http://192.0.2.1/').catch(() => {})")
    page.wait_for_timeout(50)
    assert refused == "TypeError"
    assert any("TrustedHTML" in complaint for complaint in visit.seen.complaints)
    assert any("Content Security Policy" in complaint for complaint in visit.seen.complaints)
    assert visit.seen.elsewhere == []  # the policy stops it before the network
    visit.seen.complaints.clear()
