"""The audit reads traffic as people have it, routes it as serving does, counts it, and goes on where it was stopped."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.domain import Tier
from serve_app.errors import RequestError, TierwiseError
from serve_app.evaluate import audit_report
from serve_app.evaluate.audit import Wanted
from serve_app.evaluate.audit_clusters import clusters
from serve_app.evaluate.audit_input import Bad, Prompt, read
from serve_app.evaluate.audit_totals import Example, Reservoir
from serve_app.routing import heads
from tests.evaluate.made_up import fitted, traffic
from tests.evaluate.test_html_report import Outline

EVIL = "</pre><script>alert(1)</script> rivers and snow"
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Why?"}]
SHAREGPT = {
    "id": "c",
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "One?"},
        {"from": "gpt", "value": "A" * 40},
        {"from": "human", "value": "Two?"},
    ],
}

SKY, WHO = {"from": "human", "value": "Why is the sky blue?"}, {"role": "user", "content": "Who are you?"}
BATCH = """
{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}}
{"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Who are you?", "max_tokens": 5}}
"""


class Embedder:
    """Two directions, by the first word; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, texts: list[str]) -> list[npt.NDArray[np.float32]]:
        self.asked += len(texts)
        return [np.array([1.0, 0.0] if text.startswith("P") else [0.0, 1.0], dtype=np.float32) for text in texts]


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artefact") / "gain.npz"
    path.write_bytes(heads.dump(fitted()))
    return path


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, artefact: Path) -> Run:
    """An audit of rows, or of text, by the made-up calibration; what it said on the way stands under `said`."""

    def audited(rows: list[Any] | str, *, stop_after: int = 0, name: str = "traffic", **changes: Any) -> dict[str, Any]:
        source, said = tmp_path / name, []
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        source.write_text(text, encoding="utf-8")

        def seen(prompts: int, _read: int, _size: int) -> None:
            if prompts == stop_after:
                raise KeyboardInterrupt

        fields = {"calibration": str(artefact), **changes}
        wanted = Wanted(str(source), tmp_path / "audit.html", **fields)
        found = audit_report.write(wanted, say=said.append, seen=seen, embedder=Embedder())  # type: ignore[arg-type]
        return {**found, "said": said, "page": wanted.out.read_text(encoding="utf-8")}

    return audited


def prompts(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "prompt": text, "answer_tokens": 10 + n % 7} for n, text in enumerate(traffic(count, seed=5)[0])]


def pieces(text: str | bytes, form: str = "auto") -> list[Prompt | Bad]:
    return list(read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), form))


def test_a_thousand_prompts_are_split_priced_and_shown(run: Run) -> None:
    rows = prompts(1000)
    found = run([*rows[:500], {"id": "evil", "prompt": EVIL}, *rows[500:], {"id": "nothing"}])
    assert (found["prompts"], found["unreadable"], found["answers_told"], found["kind"]) == (1001, 1, 1000, "gain")
    assert 0.3 < found["large_share_low"] < found["large_share"] < found["large_share_high"] < 0.7
    assert 0 < found["routed_usd"] < found["all_large_usd"]
    assert found["saved_share"] == pytest.approx(1 - found["routed_usd"] / found["all_large_usd"])
    assert sum(found["reasons"].values()) == 1001
    assert {term for one in found["clusters"] for term in one["terms"]} & {"prove", "calculate", "integral", "total"}


def test_the_page_is_whole_needs_nothing_else_and_no_prompt_is_markup_in_it(run: Run) -> None:
    page = run([*prompts(60), *[{"prompt": f"{EVIL} {n}"} for n in range(60)], {"prompt": 3}])["page"]
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert "script" not in {tag for tag, _ in outline.tags}
    assert "&lt;script&gt;alert(1)" in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"|url\((?!#)|@import', page)
    for title in ("Scores", "Why", "Cost", "The uncertain band", "What goes large", "Not read"):
        assert f"<h2>{title}</h2>" in page


def test_prompts_are_left_out_where_they_must_not_be_shown(run: Run) -> None:
    rows = [{"prompt": f"{text} and my secret"} for text in traffic(80)[0]]
    assert "and my secret" in run(rows)["page"]
    assert "and my secret" not in run(rows, examples=False)["page"]


def test_every_prompt_goes_where_tierwise_score_sends_it(run: Run, artefact: Path, tmp_path: Path) -> None:
    rows = [*prompts(40), {"id": "code", "prompt": "def f(x): return x\n```python\n```"}]
    run(rows)
    lines = "".join(json.dumps({"id": row["id"], "prompt": row["prompt"]}) + "\n" for row in rows)
    scored = CliRunner().invoke(app, ["score", "--calibration", str(artefact)], input=lines)
    expected = [json.loads(line) for line in scored.stdout.splitlines()]
    kept = [json.loads(line) for line in (tmp_path / "audit.html.scores.jsonl").read_text().splitlines()[1:]]
    assert [(row["id"], row["tier"], row["reason"]) for row in kept] == [(row["id"], row["tier"], row["reason"]) for row in expected]
    scores = [(row["score"], other["score"]) for row, other in zip(kept, expected, strict=True) if row["by_score"]]
    assert len(scores) > 20
    assert all(score == other for score, other in scores)


def test_an_audit_that_was_stopped_goes_on_and_says_the_same(run: Run, tmp_path: Path) -> None:
    rows = prompts(120)
    whole = run(rows, name="whole")
    (tmp_path / "audit.html.scores.jsonl").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(rows, stop_after=70, name="whole")
    resumed = run(rows, name="whole")
    assert resumed["resumed"] == 70
    assert {**resumed, "resumed": 0} == {**whole, "resumed": 0}


def test_a_journal_that_was_cut_off_in_a_line_is_good_up_to_there(run: Run, tmp_path: Path) -> None:
    rows, journal = prompts(30), tmp_path / "audit.html.scores.jsonl"
    run(rows)
    journal.write_bytes(journal.read_bytes()[:-20])
    assert run(rows)["resumed"] == 29
    assert run(rows)["resumed"] == 30


def test_more_prompts_at_the_end_are_all_that_is_scored_anew(run: Run) -> None:
    rows = prompts(40)
    run(rows[:30])
    found = run(rows)
    assert (found["prompts"], found["resumed"], found["said"]) == (40, 30, [])


def test_another_input_is_scored_anew_from_where_it_differs_and_says_so(run: Run) -> None:
    rows = prompts(30)
    run(rows)
    found = run([*rows[:10], *rows[11:]])
    assert (found["prompts"], found["resumed"]) == (29, 10)
    assert found["said"] == ["the input is another one from prompt 11 on: scored anew from there"]


def test_another_calibration_starts_anew_and_says_so(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    other.write_bytes(heads.dump(replace(fitted(), threshold=0.9)))
    rows = prompts(30)
    run(rows)
    found = run(rows, calibration=str(other))
    assert found["resumed"] == 0
    assert found["said"] == ["audit.html.scores.jsonl: made with another calibration: everything is scored anew"]


def test_a_conversation_stays_where_its_hard_turn_went(run: Run) -> None:
    hard, easy = traffic(2, seed=3)[0]
    alone = run([{"messages": [{"role": "user", "content": easy}]}])
    after = run(
        [{"messages": [{"role": "user", "content": hard}, {"role": "assistant", "content": "So."}, {"role": "user", "content": easy}]}]
    )
    assert (alone["reasons"], after["reasons"]) == ({"score_below, small": 1}, {"conversation, large": 1})


def test_prices_may_be_ones_own(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("small: {input: 0.0, output: 0.0}\nlarge: {input: 1.0, output: 2.0}\n")
    found = run([{"prompt": "x" * 400, "answer_tokens": 100}], prices=file)
    assert found["all_large_usd"] == pytest.approx((100 * 1 + 100 * 2) / 1e6)
    file.write_text("small: {input: 0.0}\n")
    with pytest.raises(TierwiseError, match=r"prices\.yaml"):
        run([{"prompt": "x"}], prices=file)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Why is the sky blue?\n\nWho are you?\n", "lines"),
        ('{"prompt": "Why is the sky blue?"}\n{"text": "Who are you?"}\n', "jsonl"),
        ('[{"question": "Why is the sky blue?"},\n {"input": "Who are you?"}]', "jsonl"),
        (BATCH, "openai-batch"),
        (json.dumps([{"id": "a", "conversations": [SKY]}, {"id": "b", "conversations": [WHO]}]), "sharegpt"),
    ],
    ids=["lines", "jsonl", "a list", "openai-batch", "sharegpt"],
)
def test_every_format_is_known_by_its_look_and_by_its_name(text: str, form: str) -> None:
    by_look = pieces(text)
    assert all(isinstance(piece, Prompt) for piece in by_look), by_look
    assert by_look == pieces(text, form) == pieces("\ufeff" + text)
    said = [str(piece.body.get("prompt") or piece.body["messages"][-1]["content"]) for piece in by_look if isinstance(piece, Prompt)]
    assert said == ["Why is the sky blue?", "Who are you?"]


def test_each_turn_of_a_user_in_sharegpt_is_a_request_with_what_came_before() -> None:
    one, two = pieces(json.dumps([SHAREGPT]))
    assert isinstance(one, Prompt)
    assert isinstance(two, Prompt)
    assert (one.id, len(one.body["messages"]), one.answer_tokens) == ("c#2", 2, 10)
    assert (two.id, [message["role"] for message in two.body["messages"]], two.answer_tokens) == (
        "c#4",
        ["system", "user", "assistant", "user"],
        None,
    )


@pytest.mark.parametrize(
    ("row", "tokens"),
    [
        ({"prompt": "a", "usage": {"prompt_tokens": 7, "completion_tokens": 9}}, (7, 9)),
        ({"prompt": "a", "response": "x" * 40}, (None, 10)),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "Because" * 4}]}, (None, 7)),
        ({"body": {"messages": MESSAGES}, "response": {"body": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}}, (3, 4)),
        ({"prompt": "a", "usage": {"completion_tokens": "many"}}, (None, None)),
    ],
)
def test_tokens_are_those_of_the_data_where_it_has_them(row: dict[str, Any], tokens: tuple[int | None, int | None]) -> None:
    (piece,) = pieces(json.dumps(row))
    assert isinstance(piece, Prompt)
    assert (piece.prompt_tokens, piece.answer_tokens) == tokens
    assert "Because" not in json.dumps(piece.body), "the answer is no part of the request"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "not an object"),
        (b'{"a": 1}', "needs messages, or a text"),
        (b'{"prompt": "  "}', "no text of a user"),
        (b'{"messages": [{"role": "nobody", "content": "x"}]}', "messages.0.role"),
        (b'{"prompt": "\\ud800"}', "not valid Unicode"),
        (b'{"prompt": "\xff"}', "not valid UTF-8"),
        (b'{"custom_id": "x", "response": {}}', "needs messages, or a text"),
        (b'{"conversations": [{"from": "alien", "value": "x"}]}', "a turn needs from"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line_and_passed_over(line: bytes, why: str) -> None:
    good, bad, other = pieces(b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n')
    assert isinstance(good, Prompt)
    assert isinstance(other, Prompt)
    assert isinstance(bad, Bad)
    assert bad.number == 2
    assert why in bad.why


def test_a_list_is_read_item_by_item_also_where_a_piece_is_larger_than_what_is_read_at_a_time() -> None:
    rows = [{"prompt": "y" * size} for size in (10, 200_000, 65_536, 3)]
    found = pieces(json.dumps(rows, indent=2))
    assert [len(piece.body["prompt"]) for piece in found if isinstance(piece, Prompt)] == [10, 200_000, 65_536, 3]


def test_behind_a_broken_item_of_a_list_nothing_can_be_found() -> None:
    found = pieces('[{"prompt": "a"}, {"prompt": b}, {"prompt": "c"}]')
    assert [type(piece) for piece in found] == [Prompt, Bad]
    assert isinstance(found[1], Bad)
    assert (found[1].number, found[1].why) == (2, "not valid JSON; nothing behind it can be read")
    assert pieces('[{"prompt": "a"}')[-1] == Bad(2, "the list does not end")


def test_only_the_first_of_many_bad_lines_are_listed(run: Run) -> None:
    found = run('{"prompt": "a"}\n' + "broken\n" * 25)
    assert found["unreadable"] == 25
    assert len(re.findall(r"<td>not valid JSON</td>", found["page"])) == 10


@pytest.mark.parametrize("text", ["", "\n \n", '{"nothing": 1}\n'])
def test_nothing_readable_is_exit_code_2_in_one_line(text: str, artefact: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    done = CliRunner().invoke(app, ["audit", "-", "--out", str(out), "--calibration", str(artefact)], input=text)
    assert done.exit_code == 2
    assert done.stderr.startswith("-: no prompt could be read")
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()


def test_a_format_that_is_none_and_a_file_that_is_not_there_are_exit_code_2(artefact: Path, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "a.html"), "--calibration", str(artefact)]
    assert CliRunner().invoke(app, ["audit", "-", "--format", "csv", *options], input="a\n").exit_code == 2
    missing = CliRunner().invoke(app, ["audit", str(tmp_path / "none"), *options])
    assert (missing.exit_code, missing.stderr) == (2, f"{tmp_path / 'none'}: No such file or directory\n")


def test_the_command_reads_stdin_and_tells_its_figures(artefact: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    command = ["audit", "-", "--out", str(out), "--calibration", str(artefact)]
    lines = "\n".join(traffic(20)[0])
    said = CliRunner().invoke(app, command, input=lines).stdout.splitlines()
    assert said[0].startswith("20 prompts, 0 not read; gain calibration")
    assert said[-1] == "fewer than 1,000 prompts: take more before you plan by it"
    told = json.loads(CliRunner().invoke(app, [*command, "--json"], input=lines).stdout)
    assert (told["prompts"], told["resumed"], told["out"]) == (20, 20, str(out))


def test_a_sample_is_fair_bounded_and_the_same_each_time() -> None:
    kept: Reservoir[int] = Reservoir(50, Random(1))
    again: Reservoir[int] = Reservoir(50, Random(1))
    for number in range(5000):
        kept.offer(number)
        again.offer(number)
    assert len(kept.kept) == 50
    assert kept.kept == again.kept
    assert 1500 < float(np.mean(kept.kept)) < 3500


def test_groups_are_by_meaning_and_named_by_their_own_words() -> None:
    texts = [f"{'river water flows' if n % 3 else 'engine piston oil'} number {n}" for n in range(60)]
    sample = [Example(str(n), text, 0.9, Tier.LARGE) for n, text in enumerate(texts)]
    vectors = np.array([[1.0, 0.01 * n] if n % 3 else [0.01 * n, 1.0] for n in range(60)], dtype=np.float32)
    found = clusters(sample, vectors, seed=0)
    assert sum(one.share for one in found) == pytest.approx(1.0)
    for one in found:
        assert len({"river" in example.text for example in one.examples}) == 1
    assert {"river", "engine"} <= {term for one in found for term in one.terms}
    assert clusters(sample, vectors, seed=0) == found


def test_texts_without_a_common_word_are_grouped_without_names() -> None:
    sample = [Example(str(n), chr(0x4E00 + n), 0.9, Tier.LARGE) for n in range(12)]
    assert [one.terms for one in clusters(sample, np.eye(12, dtype=np.float32), seed=0)] == [()]


def test_an_unknown_format_is_refused_before_anything_is_read() -> None:
    with pytest.raises(RequestError, match="one of auto, lines"):
        pieces("x", "csv")
