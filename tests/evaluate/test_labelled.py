"""The labelled prompts: enough, honestly split, no two alike, and the packaged calibration fitted on the fit part only."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from serve_app import offline
from serve_app.calibrations import builtin
from serve_app.domain import Tier
from serve_app.embedding import SentenceEmbedder, identity
from serve_app.errors import CalibrationError
from serve_app.evaluate.labelled import Labelled, first, packaged, parse_lines, read, split
from serve_app.routing import asked, fit_label, lexical
from serve_app.routing.features import cut
from serve_app.routing.label_heads import LabelHeads
from serve_app.settings import parse

ROWS = packaged()
FIT, GOLDEN = split(ROWS)
MOST_ALIKE = 0.92


def words(prompt: str) -> list[str]:
    return re.findall(r"\w+", prompt.lower())


def shared(pieces: dict[str, list[tuple[str, ...]]]) -> dict[tuple[str, ...], set[str]]:
    """The pieces that stand in more than one row, and in which."""
    owners: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for name, parts in pieces.items():
        for part in parts:
            owners[part].add(name)
    return {part: names for part, names in owners.items() if len(names) > 1}


def test_there_are_enough_prompts_in_both_parts() -> None:
    assert len(ROWS) >= 3000
    assert len(FIT) >= 2500
    assert len(GOLDEN) >= 800
    assert [len(part) for part in split(first())] == [400, 320]


def test_every_id_is_its_rows_own() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert len({row.prompt for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("part", [FIT, GOLDEN], ids=["fit", "golden"])
def test_both_tiers_stand_in_each_part(part: list[Labelled]) -> None:
    counts = Counter(row.expected_tier for row in part)
    assert min(counts[Tier.SMALL], counts[Tier.LARGE]) > len(part) * 0.3


def test_the_parts_are_disjoint_and_whole() -> None:
    assert {row.id for row in FIT}.isdisjoint(row.id for row in GOLDEN)
    assert len(FIT) + len(GOLDEN) == len(ROWS)


def test_the_split_depends_on_the_ids_only() -> None:
    shuffled = [Labelled(row.id, "other text", Tier.SMALL) for row in ROWS]
    random.Random(1).shuffle(shuffled)
    fit, golden = split(shuffled)
    assert [row.id for row in fit] == [row.id for row in FIT]
    assert [row.id for row in golden] == [row.id for row in GOLDEN]


def test_every_row_says_its_category_and_why() -> None:
    assert [row.id for row in ROWS if not (row.category and row.why and row.prompt.strip())] == []


def test_short_prompts_may_be_hard_and_long_ones_easy() -> None:
    assert sum(len(row.prompt) < 80 and row.expected_tier is Tier.LARGE for row in ROWS) >= 30
    assert sum(len(row.prompt) > 400 and row.expected_tier is Tier.SMALL for row in ROWS) >= 30


def test_no_two_prompts_of_the_first_set_begin_alike() -> None:
    assert shared({row.id: [tuple(words(row.prompt)[:4])] for row in first()}) == {}


def test_no_two_prompts_share_six_words_in_a_row() -> None:
    runs = {row.id: [tuple(run) for run in zip(*(words(row.prompt)[i:] for i in range(6)), strict=False)] for row in ROWS}
    assert shared(runs) == {}


# With the embedder: some golden prompts, each beside the fitted prompt that shares most words and byte runs with it.


@pytest.mark.slow
def test_no_golden_prompt_says_what_a_fitted_one_says() -> None:
    settings = parse({"profile": "local"})
    embedder = SentenceEmbedder(settings.embedder)
    some = GOLDEN[:: len(GOLDEN) // 120]
    pairs = [(row.prompt, FIT[nearest].prompt) for row, nearest in zip(some, _nearest(some), strict=True)]
    alike = []
    for pair in pairs:
        one, other = embedder.encode([cut(text, settings.router.max_chars) for text in pair])
        if float(one @ other) > MOST_ALIKE:
            alike.append(pair)
    assert alike == []


def _nearest(rows: list[Labelled]) -> list[int]:
    """Of each row, which fitted one has the highest cosine of hashed n-grams."""
    return [int(best) for best in np.asarray((_grams(rows) @ _grams(FIT).T).argmax(axis=1)).ravel()]


def _grams(rows: list[Labelled]) -> csr_matrix:
    found = [lexical.grams(row.prompt) for row in rows]
    values = np.concatenate([one.counts / np.linalg.norm(one.counts) for one in found])
    starts = np.cumsum([0] + [len(one.buckets) for one in found])
    return csr_matrix((values, np.concatenate([one.buckets for one in found]), starts), shape=(len(found), lexical.BUCKETS))


# The packaged calibration


@pytest.fixture(scope="module")
def shipped() -> LabelHeads:
    heads = builtin(identity(parse({"profile": "local"}).embedder)).label
    assert heads is not None
    return heads


def test_the_packaged_calibration_holds_the_fit_part_and_nothing_else(shipped: LabelHeads) -> None:
    """Row by row: hand features and n-grams of the fit part, as this version reads them."""
    assert len(shipped.rows.hand) == len(FIT)
    for place in range(0, len(FIT), 7):
        one = asked.read(FIT[place].prompt)
        part = slice(int(shipped.rows.starts[place]), int(shipped.rows.starts[place + 1]))
        assert shipped.rows.buckets[part].tolist() == one.grams.buckets.tolist()
        assert shipped.rows.hand[place] == pytest.approx(shipped.hand(one.hand), abs=5e-3)


@pytest.mark.slow
def test_the_packaged_calibration_embeds_as_the_profile_does(shipped: LabelHeads) -> None:
    embedder = SentenceEmbedder(parse({"profile": "local"}).embedder)
    for place in range(0, len(FIT), len(FIT) // 40):
        view = cut(asked.read(FIT[place].prompt).view, 2048)
        assert shipped.rows.vectors[place] == pytest.approx(embedder.encode([view])[0] * shipped.embedding_weight, abs=2e-3)


def test_the_packaged_weights_are_what_the_fit_part_asks_for(shipped: LabelHeads) -> None:
    """They solve the ridge regression on its labels: nobody trimmed them, and no other row had a say."""
    labels = fit_label.Labels([row.prompt for row in FIT], [row.expected_tier for row in FIT], [row.category for row in FIT])
    assert fit_label.residual(shipped, labels) < 1e-3


# Reading rows


def test_rows_are_read_and_blank_lines_skipped(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"id": 1, "prompt": "é", "expected_tier": "small"}\n\n{"id": "b", "prompt": "x", "expected_tier": "large", "why": "w"}\n'
    )
    assert read(file) == [Labelled("1", "é", Tier.SMALL), Labelled("b", "x", Tier.LARGE, "", "w")]


@pytest.mark.parametrize(
    "line",
    ["{", "5", "[]", '{"id": "a", "prompt": "x"}', '{"id": "a", "prompt": "x", "expected_tier": "medium"}', '{"prompt": "x"}', '"text"'],
)
def test_a_bad_row_is_named_by_file_and_line(line: str) -> None:
    with pytest.raises(CalibrationError, match=r"rows.jsonl:2: needs id, prompt and expected_tier"):
        parse_lines(['{"id": "a", "prompt": "x", "expected_tier": "small"}', line], "rows.jsonl")


def unreadable(folder: Path) -> Iterator[Path]:
    yield folder / "missing.jsonl"
    yield folder
    binary = folder / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\xff")
    yield binary


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in unreadable(tmp_path):
        with pytest.raises(CalibrationError, match="cannot be read"):
            read(path)


def test_nothing_to_fit_on_is_a_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(settings: Any) -> None:
        pytest.fail("the model was loaded for nothing")

    monkeypatch.setattr(offline, "SentenceEmbedder", unwanted)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(CalibrationError, match="no labelled rows"):
        offline.calibrate([empty], profile="local", seed=0, rate=False, progress=lambda items, _: iter(items))
