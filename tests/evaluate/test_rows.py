"""Outcome rows: read strictly, null scores dropped and counted."""

import json
from pathlib import Path

import pytest

from serve_app.domain import Tier
from serve_app.errors import CalibrationError
from serve_app.evaluate.rows import Row, parse_lines, read
from tests.evaluate.routing_data import table

GOOD = {"id": 1, "prompt": "What is 2+2?", "weak_score": 1, "strong_score": 0.5}


def line(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


def test_a_row_of_scores() -> None:
    rows = parse_lines([line(benchmark="b", task="t", another_model=1.0), "", line(id=2)], "rows.jsonl")
    assert rows.rows == (Row("1", "What is 2+2?", 1.0, 0.5, "b", "t"), Row("2", "What is 2+2?", 1.0, 0.5))
    assert rows.outcomes.gain.tolist() == [-0.5, -0.5]


def test_a_label_is_read_as_scores() -> None:
    rows = parse_lines(
        [json.dumps({"id": i, "prompt": "x", "expected_tier": tier}) for i, tier in enumerate(("small", "large"))], "rows.jsonl"
    )
    assert [(row.weak, row.strong, row.expected) for row in rows.rows] == [(1.0, 1.0, Tier.SMALL), (0.0, 1.0, Tier.LARGE)]


@pytest.mark.parametrize("name", ["weak_score", "strong_score"])
def test_a_null_score_is_dropped_and_counted(name: str) -> None:
    rows = parse_lines([line(), line(**{name: None})], "rows.jsonl")
    assert (len(rows.rows), rows.dropped) == (1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "[]",
        "null",
        json.dumps({"id": 1, "prompt": "x"}),
        json.dumps({"id": 1, "prompt": "x", "weak_score": 1}),
        json.dumps({"id": 1, "prompt": "x", "expected_tier": "medium"}),
        line(prompt=" "),
        line(prompt=3),
        line(weak_score=1.5),
        line(weak_score=-0.1),
        line(strong_score="1"),
        line(strong_score=float("nan")),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(bad: str) -> None:
    with pytest.raises(CalibrationError, match=r"rows\.jsonl:2: needs id, prompt, and weak_score"):
        parse_lines([line(), bad], "rows.jsonl")


def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.jsonl").write_text(line(id=number) + "\n" + line(weak_score=None) + "\n")
    rows = read([tmp_path / "1.jsonl", tmp_path / "2.jsonl"])
    assert ([row.id for row in rows.rows], rows.dropped) == (["1", "2"], 2)
    assert rows.select([1]).rows == (rows.rows[1],)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\xff")
    for name in ("missing.jsonl", "binary.jsonl"):
        with pytest.raises(CalibrationError, match=rf"{name}: cannot be read"):
            read([tmp_path / name])


def test_a_published_table_is_read_whole() -> None:
    rows = table("routellm_mmlu_mixtral_gpt4.jsonl")
    assert (len(rows.rows), rows.dropped, set(rows.benchmarks)) == (1500, 0, {"mmlu_5shot"})
