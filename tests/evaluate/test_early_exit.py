"""The evidence for early exit: its figures, and the command that asks a running endpoint for them."""

import http.server
import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.domain import Confidence, Json, Tier
from serve_app.evaluate.early_exit import Answered, as_text, auc, auc_interval, judge, threshold_for
from serve_app.evaluate.golden import wilson
from serve_app.evaluate.labelled import first, split

ROWS = first()
LABELS = {row.prompt: row.expected_tier for row in ROWS}
FIT, GOLDEN = split(ROWS)
SMALL_VALUES = st.lists(st.integers(-8, 0).map(float), min_size=1, max_size=20)


# the figures


@settings(deadline=None)
@given(SMALL_VALUES, SMALL_VALUES)
def test_the_area_is_the_one_of_the_books_ties_included(small: list[float], large: list[float]) -> None:
    """Doubt is a low value, so that the score for `large` is its negative."""
    labels = [0] * len(small) + [1] * len(large)
    assert auc(np.array(small), np.array(large)) == pytest.approx(roc_auc_score(labels, [-value for value in small + large]))


def test_the_interval_holds_the_area_and_narrows_with_more_prompts() -> None:
    rng = np.random.default_rng(1)
    small, large = rng.normal(0.0, 1.0, 400), rng.normal(-0.5, 1.0, 400)
    low, high = auc_interval(small, large, np.random.default_rng(0))
    assert low < auc(small, large) < high
    assert (low, high) == auc_interval(small, large, np.random.default_rng(0))
    # Hanley and McNeil, 1982: the standard error of an area of 0.64 with 400 and 400 is 0.0193.
    assert high - low == pytest.approx(2 * 1.96 * 0.0193, rel=0.15)
    few_low, few_high = auc_interval(small[:40], large[:40], np.random.default_rng(0))
    assert few_high - few_low > 2 * (high - low)


@settings(deadline=None)
@given(st.lists(st.floats(-100.0, 0.0), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_a_threshold_never_sends_on_more_than_the_share(small: list[float], share: float) -> None:
    values = np.array(small)
    assert (values < threshold_for(values, share)).mean() <= share


def test_a_threshold_sends_on_the_whole_share_and_is_what_is_printed() -> None:
    values = -np.arange(1, 101) / 3
    threshold = threshold_for(values, 0.1)
    assert (values < threshold).sum() == 10
    assert threshold == float(f"{threshold:.4f}")


def answered(tier: Tier, mean: float, low: float, margin: float, whole: float) -> Answered:
    return Answered(tier, Confidence(16, mean, low, margin), Confidence(64, whole, whole, whole))


def part(size: int) -> list[Answered]:
    """`low` tells the labels apart, `mean` does the contrary, `margin` is noise; over the whole answer everything is lower."""
    small = [answered(Tier.SMALL, -2.0 - i / size, -1.0 - i / size, float(i % 7), -3.0 - i / size) for i in range(size)]
    large = [answered(Tier.LARGE, -1.0 - i / size, -1.5 - i / size, float(i % 7), -3.5 - i / size) for i in range(size)]
    return small + large


def test_the_best_statistic_is_the_one_of_the_fit_part_and_its_figures_are_the_golden_parts() -> None:
    upside_down = [Answered(answer.expected.other, answer.first, answer.whole) for answer in part(50)]
    report = judge(part(100), upside_down, tokens=16, target_share=0.1)
    best = report.best
    assert (best.name, best.tokens, best.auc_fit) == ("low", 16, pytest.approx(0.875, abs=0.01))
    assert best.auc == pytest.approx(1 - 0.875, abs=0.01)
    assert not report.tells
    assert "leave early exit off" in as_text(report)[-1]


def test_shares_are_of_the_golden_prompts_below_the_fitted_threshold() -> None:
    report = judge(part(100), part(50), tokens=16, target_share=0.1)
    best = report.best
    assert best.threshold == pytest.approx(-1.89)
    assert (best.small_escalated, best.large_caught) == (5 / 50, 30 / 50)
    assert (best.small_interval, best.large_interval) == (wilson(5, 50), wilson(30, 50))
    assert (report.fit, report.golden, report.tells) == (200, 100, True)
    assert as_text(report)[-1] == "early_exit: {enabled: true, tokens: 16, statistic: low, threshold: -1.89, whole_threshold: -3.89}"


def test_better_than_chance_by_chance_is_no_evidence() -> None:
    report = judge(part(100), part(2), tokens=16, target_share=0.1)
    assert report.best.interval[0] <= 0.5 < report.best.auc
    assert not report.tells


def test_whole_answers_have_thresholds_of_their_own() -> None:
    report = judge(part(100), part(50), tokens=16, target_share=0.1)
    assert [line.tokens for line in report.whole] == [64, 64, 64]
    assert all(line.threshold == pytest.approx(-3.89) and line.small_escalated == 0.1 for line in report.whole)
    assert report.unstreamed == report.whole[1]
    assert (report.unstreamed.name, report.unstreamed.tokens) == (report.best.name, 64)


# the command, against an endpoint whose small tier is unsure of what the labels call large


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for an acknowledgement
    asked: list[Json]
    status = 200
    body: bytes | None = None

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(asked)
        data = self.body if self.body is not None else json.dumps(answer_to(asked["messages"][0]["content"])).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


def answer_to(prompt: str) -> Json:
    """Eight tokens: of hard prompts the first ones are unsure, of all the last one."""
    spread = len(prompt) % 100 / 100
    first = -1.5 - spread if LABELS[prompt] is Tier.LARGE else -1.0 - spread
    values = [first] * 4 + [-0.1] * 3 + [-9.0]
    content = [
        {"token": "a", "logprob": v, "top_logprobs": [{"token": "a", "logprob": v}, {"token": "b", "logprob": -9.5}]} for v in values
    ]
    return {"choices": [{"index": 0, "message": {"content": "a"}, "logprobs": {"content": content}}]}


@pytest.fixture
def url() -> Iterator[str]:
    Handler.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["early-exit", *arguments])


def check_mistake(result: Result, says: str) -> None:
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output


def test_the_small_tier_is_asked_every_labelled_prompt_once(url: str) -> None:
    report = json.loads(run("--url", url, "--tokens", "4", "--target-share", "0.2", "--json").stdout)
    assert sorted(body["messages"][0]["content"] for body in Handler.asked) == sorted(LABELS)
    wanted = {"model": "small", "max_tokens": 64, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    assert all({**body, "messages": None} == {**wanted, "messages": None} for body in Handler.asked)
    assert (report["fit"], report["golden"], report["tokens"], report["target_share"]) == (len(FIT), len(GOLDEN), 4, 0.2)
    means = {
        part: [-answer_to(row.prompt)["choices"][0]["logprobs"]["content"][0]["logprob"] for row in rows] for part, rows in PARTS.items()
    }
    areas = {part: roc_auc_score([row.expected_tier is Tier.LARGE for row in rows], means[part]) for part, rows in PARTS.items()}
    first = report["first"][0]
    assert (first["name"], first["auc_fit"], first["auc"]) == ("mean", pytest.approx(areas["fit"]), pytest.approx(areas["golden"]))
    assert report["tells"] is True


PARTS = {"fit": FIT, "golden": GOLDEN}


def test_as_text_it_ends_with_what_to_set(url: str) -> None:
    result = run("--url", url, "--tokens", "4")
    assert result.exit_code == 0, result.output
    lines = result.stdout.strip().splitlines()
    assert [line.split()[:2] for line in lines[2:8]] == [[n, name] for n in ("4", "64") for name in ("mean", "low", "margin")]
    assert lines[-1].startswith("early_exit: {enabled: true, tokens: 4, statistic: mean, threshold: -1.")


@pytest.mark.parametrize("arguments", [("--tokens", "0"), ("--tokens", "65"), ("--target-share", "0"), ("--target-share", "1")])
def test_an_argument_out_of_range_is_one_line(arguments: tuple[str, str]) -> None:
    check_mistake(run(*arguments), f"{arguments[0]}: must be")


def test_not_a_number_is_no_share() -> None:
    check_mistake(run("--target-share", str(math.nan)), "--target-share: must be")


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b"{}", "answered 401"),
        (200, b"<html>", "is this tierwise?"),
        (200, b'{"choices": [{"logprobs": null}]}', "gave no log-probabilities"),
    ],
)
def test_an_endpoint_that_answers_otherwise_is_asked_a_few_times_only(
    url: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, says: str
) -> None:
    monkeypatch.setattr(Handler, "status", status)
    monkeypatch.setattr(Handler, "body", body)
    check_mistake(run("--url", url), says)
    assert len(Handler.asked) < len(ROWS) / 2


@pytest.mark.parametrize(("url", "says"), [("localhost:8000", "not an http address"), ("http://127.0.0.1:9", "is tierwise running?")])
def test_it_needs_a_running_endpoint(url: str, says: str) -> None:
    check_mistake(run("--url", url), says)
