"""The page in a real Chromium, before a real server over fakes: no Ray, no model, and no network but this machine's own."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from serve_app.domain import TierLoad
from tests.fakes import Pause, World, stream_script
from tests.gateway.conftest import make_app
from tests.graph import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HARD_WORDS = ("casino", "migration", "design")
PATIENCE_MS = 15_000  # for a machine that does other things too
WORDS = ["A", " router", " passes", " packets", " on", "."]


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def hardness(text: str) -> float:
    """What the fake embedder thinks: a few words are hard, and longer is harder."""
    return 0.93 if any(word in text.lower() for word in HARD_WORDS) else min(0.6, 0.2 + len(text) / 400)


def make_world() -> World:
    world = World()
    world.clock = RealClock()  # type: ignore[assignment]  # the page's figures are of the last minutes
    world.embedder.by_text = hardness
    world.small.script = stream_script(*WORDS)
    world.large.script = stream_script("It", " depends", ".")
    world.small.known_load = TierLoad(2, 1, 3, 32, 0.0)
    world.large.known_load = TierLoad(1, 0, 1, 8, 0.0)
    return world


def slow(world: World, words: int = 40) -> None:
    """The small tier's next answers take their time."""
    world.small.script = [item for event in stream_script(*[" word"] * words) for item in (event, Pause(0.1))]


@contextmanager
def served(world: World, **options: Any) -> Iterator[str]:
    """The app on a port of its own, in a thread with a loop of its own."""
    port = free_port()
    config = uvicorn.Config(make_app(world, **options), host="127.0.0.1", port=port, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=5)


@dataclass
class Seen:
    """What a page said and asked for."""

    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@dataclass
class Visit:
    """A tab at the page, the world behind it, and what the browser noticed. `open` goes to a view."""

    page: Page
    world: World
    url: str
    seen: Seen

    def open(self, view: str = "try") -> Page:
        self.page.goto(f"{self.url}/#{view}")
        self.page.wait_for_selector(f"#view-{view}:not([hidden])")
        return self.page

    def ask(self, text: str) -> None:
        """Ask under Try and wait for the account of the answer."""
        self.page.fill("#prompt", text)
        self.page.click("#send")
        self.page.wait_for_selector("#answers .answer[data-state=done] .account dd")

    def traffic(self, count: int) -> None:
        """Decisions in the ledger, as other clients make them."""
        for number in range(count):
            text = f"Design number {number}" if number % 3 == 0 else "hello " * (1 + number % 12)
            body = {"messages": [{"role": "user", "content": text}], "stream": True}
            self.page.request.post(f"{self.url}/v1/chat/completions", data=body)


@pytest.fixture(scope="package")  # Playwright keeps a loop running in this thread: no test elsewhere could run its own
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: see tests/apt.txt")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, "--disable-gpu"])
        yield chromium
        chromium.close()


@contextmanager
def visiting(browser: Browser, world: World, url: str, **options: Any) -> Iterator[Visit]:
    """A fresh tab. Everything outside of `url` is refused and noted; at the end nothing must have been, and nothing been said."""
    context: BrowserContext = browser.new_context(**options)
    page, seen = context.new_page(), Seen()
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))

    def gate(route: Route) -> None:
        if not route.request.url.startswith(url):
            seen.elsewhere.append(route.request.url)
            route.abort()
            return
        seen.asked.append(route.request.url.removeprefix(url))
        with suppress(Exception):  # the tab may be closing
            route.continue_()

    context.route("**/*", gate)
    try:
        yield Visit(page, world, url, seen)
        assert seen.elsewhere == []
        assert seen.complaints == []
    finally:
        context.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    world = make_world()
    with served(world) as url, visiting(browser, world, url, viewport={"width": 1280, "height": 900}) as made:
        yield made
