"""The pictures of `docs/images`: a running `make serve` is asked the golden prompts, and photographed.

python -m tests.browser.pictures http://127.0.0.1:8000 --ledger sqlite:///tierwise.db [--out docs/images] [--requests 560]

Writes try, live, live-dark, tune and phone, and of `tierwise report` the upper half as `report.png`. Look at each before it is committed.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from serve_app.evaluate.labelled import Labelled, packaged, split
from tests.browser.conftest import CHROMIUM
from tests.graph import BIN

AT_ONCE = 6
WIDE: ViewportSize = {"width": 1280, "height": 900}
REPORT: ViewportSize = {"width": 1000, "height": 2240}
EASY, HARD = "What is a router?", "Could a perfectly honest person run a casino?"
ELSEWHERE = 0.58  # of the slider under Tune


class Crowd:
    """Asks every golden prompt, again from the first when they are through. `answered`: decision ids and what they were asked."""

    def __init__(self, url: str, rows: list[Labelled], count: int) -> None:
        self.answered: list[tuple[str, Labelled]] = []
        self.count = count
        self._url, self._rows = url, rows

    async def ask(self) -> None:
        places = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(base_url=self._url, timeout=120, trust_env=False) as client:

            async def one(number: int, row: Labelled) -> None:
                body = {"messages": [{"role": "user", "content": row.prompt}], "max_tokens": 32, "stream": number % 2 == 1}
                async with places:
                    answer = (await client.post("/v1/chat/completions", json=body)).raise_for_status()
                self.answered.append((answer.headers["x-tierwise-decision-id"], row))

            wanted = itertools.islice(itertools.cycle(self._rows), self.count)
            await asyncio.gather(*(one(number, row) for number, row in enumerate(wanted)))


def labels(decided: list[tuple[str, Labelled]], file: Path) -> Path:
    file.write_text("".join(json.dumps({"id": name, "expected_tier": row.expected_tier.value}) + "\n" for name, row in decided))
    return file


def first_answer(page: Page, url: str) -> dict[str, float]:
    """A newcomer's first minute, in seconds: the page knows the threshold, the score stands while one types, the answer is there."""
    took, started = {}, time.perf_counter()
    page.goto(f"{url}/#try")
    page.wait_for_selector("#why :text('threshold')")
    took["page"], started = time.perf_counter() - started, time.perf_counter()
    page.locator("#prompt").press_sequentially(EASY)
    page.wait_for_selector("#why .verdict:has-text('Would go to')")
    took["score"], started = time.perf_counter() - started, time.perf_counter()
    page.click("#send")
    page.wait_for_selector("#answers .answer[data-state=done] .account dd")
    took["answer"] = time.perf_counter() - started
    print("saved:", page.locator("#answers .account .saved dd").inner_text())
    return took


def try_view(page: Page, url: str) -> None:
    """A hard prompt, and the other tier's answer beside it."""
    page.goto(f"{url}/#try")
    page.fill("#prompt", HARD)
    page.click("#send")
    page.click("#compare button")
    page.wait_for_selector("#compare .verdict")
    page.evaluate("document.activeElement.blur()")


def tune_view(page: Page, url: str, file: Path) -> None:
    page.goto(f"{url}/#tune")
    page.wait_for_selector("#tune-scores svg")
    page.set_input_files("#labels", file)
    page.locator("#threshold").fill(str(ELSEWHERE))
    page.wait_for_selector("#tune-quality svg")
    page.wait_for_timeout(500)


def live_views(browser: Browser, url: str, out: Path, crowd: Crowd) -> None:
    """Photographed while the requests come: the queues are drawn from what the page has seen since it was opened."""
    pages = {"live": browser.new_page(viewport=WIDE), "live-dark": browser.new_page(viewport=WIDE, color_scheme="dark")}
    for page in pages.values():
        page.goto(f"{url}/#live")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asyncio.run, crowd.ask())
        while len(crowd.answered) < 0.95 * crowd.count and not asking.done():
            pages["live"].wait_for_timeout(200)
        for name, page in pages.items():
            page.screenshot(path=out / f"{name}.png", full_page=True)
        asking.result()
    print(f"{len(crowd.answered)} answered", flush=True)


def other_views(browser: Browser, url: str, out: Path, file: Path) -> None:
    page = browser.new_page(viewport=WIDE)
    try_view(page, url)
    page.screenshot(path=out / "try.png", full_page=True)
    tune_view(page, url, file)
    page.screenshot(path=out / "tune.png", full_page=True)
    phone = browser.new_page(viewport={"width": 375, "height": 800}, device_scale_factor=2, is_mobile=True, has_touch=True)
    try_view(phone, url)
    phone.screenshot(path=out / "phone.png", full_page=True)


def report_view(browser: Browser, ledger: str, out: Path, file: Path) -> None:
    """Its first half: the rest are tables."""
    report = file.with_name("report.html")
    subprocess.run([BIN / "tierwise", "report", "--ledger", ledger, "--outcomes", file, "--out", report], check=True)
    page = browser.new_page(viewport=REPORT)
    page.goto(report.as_uri())
    page.screenshot(path=out / "report.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--ledger", required=True, help="the running graph's")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--requests", type=int, default=560)
    given = parser.parse_args()
    crowd = Crowd(given.url, split(packaged())[1], given.requests)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, "--disable-gpu"])
        took = first_answer(browser.new_page(viewport=WIDE), given.url)
        print("first answer, seconds:", {name: round(seconds, 1) for name, seconds in took.items()}, flush=True)
        live_views(browser, given.url, given.out, crowd)
        file = labels(crowd.answered, Path(folder) / "labels.jsonl")
        time.sleep(1)  # the last rows
        report_view(browser, given.ledger, given.out, file)
        other_views(browser, given.url, given.out, file)
        browser.close()


if __name__ == "__main__":
    main()
