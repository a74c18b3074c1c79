"""The report is one file that needs nothing else, shows what was recorded, and no record's text is markup in it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.domain import Tier
from serve_app.evaluate import disagreements
from serve_app.observe.receipt import receipt
from serve_app.observe.store import Store
from tests.evaluate.test_replay import DEPLOYMENTS, decided
from tests.observe.common import pair, record

EVIL = "</pre><script>alert(1)</script>"


class Outline(HTMLParser):
    """Every tag with its attributes, headings, and whether tags are closed as they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, object]]:
    """The ledger's URL, the page, and what the command said."""
    folder = tmp_path_factory.mktemp("report")
    url, out = f"sqlite:///{folder / 'ledger.db'}", folder / "report.html"
    store = Store(url)
    scores = [number / 40 for number in range(40)]
    store.write([decided(f"tw-{n}", score, Tier.LARGE if score >= 0.65 else Tier.SMALL) for n, score in enumerate(scores)])
    store.write([pair("tw-1", answer=EVIL, mirror_answer="quite different", prompt={"messages": [{"role": "user", "content": EVIL}]})])
    store.write([pair("tw-2", answer="the same words", mirror_answer="The same words!"), receipt(record("tw-41", created=1041.0))])
    store.close()
    done = CliRunner().invoke(app, ["report", "--ledger", url, "--out", str(out), "--config", str(DEPLOYMENTS), "--json"])
    assert done.exit_code == 0, done.output
    return url, out.read_text(encoding="utf-8"), json.loads(done.output)


def test_the_page_is_whole_and_every_plot_is_in_it(made: tuple[str, str, dict[str, object]]) -> None:
    outline = Outline()
    outline.feed(made[1])
    assert outline.open == []
    plots = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(plots) == 6
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', made[1])) <= set(ids)


def test_the_page_asks_for_nothing_from_elsewhere(made: tuple[str, str, dict[str, object]]) -> None:
    outline = Outline()
    outline.feed(made[1])
    assert {tag for tag, _ in outline.tags} & {"script", "link", "img", "iframe", "image", "object"} == set()
    asked = [value for _, attributes in outline.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")]
    assert [value for value in asked if not str(value).startswith("#")] == []
    assert "@import" not in made[1]
    assert re.findall(r"url\((?!#)", made[1]) == []


def test_text_from_records_stays_text(made: tuple[str, str, dict[str, object]]) -> None:
    assert EVIL not in made[1]
    assert made[1].count("&lt;/pre&gt;&lt;script&gt;alert(1)") == 2, "the prompt and an answer"


def test_the_page_tells_the_figures_of_the_records(made: tuple[str, str, dict[str, object]]) -> None:
    summary = made[2]
    assert (summary["decisions"], summary["not_ok"], summary["large_share"]) == (41, 0, pytest.approx(15 / 41))
    assert "41 requests" in made[1]
    assert re.search(r"<tr class=now><td>0\.65</td>", made[1])
    assert "score_below" in made[1]
    assert "prefers-color-scheme: dark" in made[1]
    assert made[1].count("currentColor") > 6


def test_the_worst_disagreement_comes_first(made: tuple[str, str, dict[str, object]]) -> None:
    found = disagreements.find(made[0], None, None)
    assert [(one.decision_id, one.alike) for one in found.worst] == [("tw-1", 0.0), ("tw-2", 1.0)]
    assert (found.pairs, found.alike) == (2, 0.5)
    assert (found.worst[0].small, found.worst[0].large) == (EVIL, "quite different")
    assert [one.decision_id for one in disagreements.find(made[0], None, None, most=1).worst] == ["tw-1"]
    assert disagreements.find(made[0], 1_800_000_000.0, None).pairs == 0


def test_a_file_of_judged_rows_has_the_quality_too_and_no_answers(made: tuple[str, str, dict[str, object]], tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.html"
    row = {
        "score": 0.4,
        "tier": "small",
        "reason": "score_below",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "cost_usd": 1,
        "outcome": "ok",
    }
    row |= {"all_large_usd": 2, "created": 5.0, "threshold": 0.5, "total_seconds": 0.5, "weak_score": 0.5, "strong_score": 1}
    rows.write_text(f"{json.dumps(row)}\n{json.dumps({**row, 'created': 6.0})}\n")
    command = ["report", "--data", str(rows), "--out", str(out), "--config", str(DEPLOYMENTS)]
    assert CliRunner().invoke(app, command).exit_code == 0
    text = out.read_text(encoding="utf-8")
    assert "Quality by threshold" in text
    assert "mirror_share" in text
    rows.write_text(json.dumps({**row, "total_seconds": None}))
    done = CliRunner().invoke(app, [*command, "--json"])
    assert (done.exit_code, json.loads(done.output)["p99_seconds"]) == (0, None)
    rows.write_text(json.dumps({**row, "created": None}))
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, len(done.output.strip().splitlines())) == (2, 1)
