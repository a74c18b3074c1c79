"""The labelled prompts: enough, honestly split, no two alike, and the packaged calibration fitted on the fit part only."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serve_app import offline
from serve_app.calibrations import builtin
from serve_app.domain import Tier
from serve_app.embedding import SentenceEmbedder, identity
from serve_app.errors import CalibrationError
from serve_app.evaluate.labelled import Labelled, packaged, parse_lines, read, split
from serve_app.routing.features import cut
from serve_app.settings import parse

ROWS = packaged()
FIT, GOLDEN = split(ROWS)
MOST_ALIKE = 0.9


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
    assert len(ROWS) >= 600
    assert len(FIT) == 400
    assert len(GOLDEN) >= 200


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


def test_no_two_prompts_begin_alike() -> None:
    assert shared({row.id: [tuple(words(row.prompt)[:4])] for row in ROWS}) == {}


def test_no_two_prompts_share_six_words_in_a_row() -> None:
    runs = {row.id: [tuple(run) for run in zip(*(words(row.prompt)[i:] for i in range(6)), strict=False)] for row in ROWS}
    assert shared(runs) == {}


# With the embedder: one pass over all prompts, about half a minute on a slow core.


@pytest.fixture(scope="module")
def vectors() -> dict[str, npt.NDArray[np.float32]]:
    """Every prompt's embedding, by its scored text."""
    settings = parse({"profile": "local"})
    embedder = SentenceEmbedder(settings.embedder)
    texts = [cut(row.prompt, settings.router.max_chars) for row in ROWS]
    return dict(zip(texts, embedder.encode(texts), strict=True))


@pytest.mark.slow
def test_no_two_prompts_mean_the_same(vectors: dict[str, npt.NDArray[np.float32]]) -> None:
    texts, matrix = list(vectors), np.stack(list(vectors.values()))
    cosines = np.triu(matrix @ matrix.T, k=1)
    alike = [(texts[i], texts[j]) for i, j in np.argwhere(cosines > MOST_ALIKE)]
    assert alike == []


@pytest.mark.slow
def test_the_packaged_calibration_was_fitted_on_the_fit_part_only(
    vectors: dict[str, npt.NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tierwise calibrate` on the fit part gives the packaged artefact; floats may differ in their last digits between CPUs.

    The router model's middle is left out: asking it takes as long as everything else here.
    """
    asked: list[str] = []

    class Remembered:
        def __init__(self, settings: object) -> None:
            pass

        def encode(self, texts: list[str]) -> list[npt.NDArray[np.float32]]:
            asked.extend(texts)
            return [vectors[text] for text in texts]

    monkeypatch.setattr(offline, "SentenceEmbedder", Remembered)
    fitted = offline.calibrate([], profile="local", seed=0, rate=True, progress=lambda items, _: iter(items))
    shipped = builtin(identity(parse({"profile": "local"}).embedder))
    assert sorted(asked) == sorted(cut(row.prompt, 2048) for row in FIT)
    assert (fitted.kind, fitted.embedder, fitted.threshold) == (shipped.kind, shipped.embedder, shipped.threshold)
    assert {**fitted.description, "assessment": shipped.description["assessment"]} == shipped.description
    assert fitted.large_share == pytest.approx(shipped.large_share, abs=0.003)
    for mine, theirs in ((fitted.simple, shipped.simple), (fitted.complex, shipped.complex)):
        assert mine == pytest.approx(theirs, abs=1e-5)
    assert (fitted.logistic.scale, fitted.logistic.offset) == pytest.approx((shipped.logistic.scale, shipped.logistic.offset), rel=1e-4)


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
