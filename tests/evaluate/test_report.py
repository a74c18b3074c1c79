"""`tierwise evaluate`: ours beside the baselines, on made-up traffic, and on the development data where it is there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app import offline
from serve_app.errors import CalibrationError
from serve_app.evaluate import corpus, unseen
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.comparison import OURS, Ranking, compare, keywords
from serve_app.evaluate.routing_metrics import Outcomes
from serve_app.routing import heads
from tests.evaluate.made_up import fitted, traffic, write
from tests.evaluate.routing_data import table
from tests.test_cli import check_mistake, run


def evaluated(*options: object) -> dict[str, Any]:
    result = run("evaluate", "--json", "--no-embed", *map(str, options))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def quietly(items: list[Any], _: str) -> Iterator[Any]:
    return iter(items)


def test_nested_folds_give_what_new_traffic_gives(tmp_path: Path) -> None:
    report = evaluated("--data", write(tmp_path / "rows.jsonl", rows=400, benchmark="made"))
    methods = report["pooled"]["methods"]
    assert set(methods) == {"ours", "random", "length", "keywords", "oracle"}
    assert methods["oracle"]["apgr"]["value"] > methods["ours"]["apgr"]["value"] > 0.6
    assert methods["random"]["apgr"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert methods["ours"]["ours_minus"] is None
    assert methods["random"]["ours_minus"]["low"] > 0.0
    assert methods["ours"]["ece_small"] < 0.15
    assert methods["length"]["ece_small"] is None
    assert report["pooled"]["realised_shares"]["0.3"] == pytest.approx(0.3, abs=0.1)
    assert (report["rows"], report["dropped"], report["how"]) == (400, 0, "nested five-fold")


def test_rows_without_gain_are_a_tie_and_said_so(tmp_path: Path) -> None:
    """The large model is no better: no fold has anything to learn."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps({"id": i, "prompt": text, "weak_score": 1, "strong_score": 1}) for i, text in enumerate(traffic()[0]))
    )
    report = evaluated("--data", path)
    assert report["without_signal"] == ["1", "2", "3", "4", "5"]
    assert set(report["pooled"]["realised_shares"].values()) == {0.0, 1.0}


def test_a_benchmark_is_judged_by_a_fit_on_the_others(tmp_path: Path) -> None:
    """The same kind of traffic under two names: what is learned on one holds on the other."""
    files = [write(tmp_path / f"{name}.jsonl", seed=seed, benchmark=name) for seed, name in enumerate(("one", "two"), start=1)]
    report = evaluated("--data", files[0], "--data", files[1], "--train-elsewhere")
    assert report["how"] == "fitted on all other benchmarks"
    assert sorted(report["benchmarks"]) == ["one", "two"]
    areas = [report["benchmarks"][name]["methods"]["ours"]["apgr"]["value"] for name in ("one", "two")]
    assert min(areas) > 0.55
    assert report["macro"]["methods"]["ours"]["apgr"]["value"] == pytest.approx(np.mean(areas), abs=1e-4)
    text = run("evaluate", "--data", str(files[0]), "--data", str(files[1]), "--train-elsewhere", "--no-embed").stdout
    assert "mean of 2 benchmarks with a gap" in text
    assert report["macro_meaningful"] == {}  # 240 rows each: too few


def test_benchmarks_with_few_rows_or_hardly_a_gap_are_left_out_of_the_second_mean() -> None:
    random = np.random.default_rng(0)
    sizes, gaps = {"large": 400, "few": 100, "level": 400}, {"large": 0.5, "few": 0.5, "level": 0.01}
    strong = [np.arange(size) < 0.4 * size + gaps[name] * size for name, size in sizes.items()]
    weak = [np.arange(size) < 0.4 * size for size in sizes.values()]
    outcomes = Outcomes(np.concatenate(weak).astype(float), np.concatenate(strong).astype(float))
    names = [name for name, size in sizes.items() for _ in range(size)]
    found = compare({OURS: Ranking(random.random(900))}, outcomes, names, price_ratio=0.125)
    assert (found["macro"]["benchmarks"], found["macro_meaningful"]["benchmarks"]) == (3, 1)
    only = found["benchmarks"]["large"]["methods"][OURS]["apgr"]
    assert found["macro_meaningful"]["methods"][OURS]["apgr"] == only


def test_no_row_of_a_benchmark_or_its_questions_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def spy(one: corpus.Corpus, outcomes: Outcomes, *, groups: list[str], **_: object) -> None:
        seen.append(set(groups))
        raise CalibrationError("enough seen")

    monkeypatch.setattr(unseen.fitting, "fit_corpus", spy)
    texts, outcomes = traffic(rows=60)
    groups, names = [str(i % 40) for i in range(60)], ["a"] * 30 + ["b"] * 30
    made = unseen.Table(corpus.Corpus.of(texts), outcomes, groups, names)
    result = unseen.elsewhere(made, seed=0, progress=quietly)
    assert seen == [{str(i) for i in range(30, 40)}, {str(i) for i in range(20, 30)}]  # 0 to 19 are asked in both
    assert result.without_signal == ("a", "b")
    unseen.nested(made, seed=0, progress=quietly)
    assert [len(one) for one in seen[2:]] == [32] * 5


def test_a_finished_artefact_is_judged_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(heads.dump(fitted()))
    report = evaluated("--data", write(tmp_path / "new.jsonl", seed=9), "--calibration", path)
    texts, outcomes = traffic(seed=9)
    expected = metrics.apgr(np.array([fitted().judge(text).score for text in texts]), outcomes)
    assert report["pooled"]["methods"]["ours"]["apgr"]["value"] == pytest.approx(expected, abs=2e-3)
    assert report["warnings"] == []


def test_an_artefact_fitted_on_a_file_of_that_name_is_warned_of(tmp_path: Path) -> None:
    rows, path = write(tmp_path / "made up"), tmp_path / "c.npz"
    path.write_bytes(heads.dump(fitted()))
    assert "nothing here is new to it" in evaluated("--data", rows, "--calibration", path)["warnings"][0]


def test_centroids_are_compared_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Embedder:
        def __init__(self, settings: object) -> None:
            pass

        def encode(self, texts: list[str]) -> list[Any]:
            return [np.ones(384, dtype=np.float32) / np.float32(384**0.5)] * len(texts)

    monkeypatch.setattr(offline, "SentenceEmbedder", Embedder)
    report = evaluated("--data", write(tmp_path / "rows.jsonl"), "--centroids")
    assert report["pooled"]["methods"]["centroids"]["apgr"]["value"] == 0.5  # every embedding is the same one


def test_all_predictions_at_once_equal_one_at_a_time() -> None:
    texts, _ = traffic(rows=30, seed=8)
    texts.append("zxqvy wkjhg qqqrr")
    whole = corpus.predict(fitted(), corpus.Corpus.of(texts))
    alone = [fitted().judge(text) for text in texts]
    for name in ("score", "weak", "strong", "novelty"):
        assert getattr(whole, name) == pytest.approx([getattr(one, name) for one in alone], abs=1e-4), name


def test_the_rule_by_hand_knows_code_and_thought() -> None:
    assert keywords("What colour is the sky?") < keywords("Explain how tides work") < keywords("Prove that x^2 + 1 = 0 has no real root")


def test_a_model_that_is_not_better_has_no_area() -> None:
    outcomes = Outcomes(np.ones(10), np.zeros(10))
    found = compare({OURS: Ranking(np.arange(10.0))}, outcomes, [""] * 10, price_ratio=0.125)
    assert found["pooled"]["methods"][OURS]["apgr"] == {"value": None, "low": None, "high": None}
    assert found["macro"] == {}
    assert json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--train-elsewhere",), "rows of two benchmarks at least"),
        (("--calibration", "none.npz"), "none.npz: No such file"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    check_mistake(run("evaluate", "--data", str(write(tmp_path / "rows.jsonl")), "--no-embed", *options), says)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    check_mistake(run("evaluate", "--data", str(empty), "--no-embed"), "no rows to evaluate on")


@pytest.mark.slow
def test_on_the_gsm8k_rows_ours_is_above_random() -> None:
    rows = table("routellm_gsm8k_mixtral_gpt4.jsonl")
    made = unseen.Table(corpus.Corpus.of(rows.prompts), rows.outcomes, [row.id for row in rows.rows], rows.benchmarks)
    found = unseen.nested(made, seed=0, progress=quietly).predicted
    drawn = metrics.bootstrap({"ours": found.score}, rows.outcomes)["ours"]
    assert metrics.interval(metrics.apgr(found.score, rows.outcomes), drawn).low > 0.55
