"""The fitted heads of a label artefact: with the embedding and without, in a file, and what is refused."""

import dataclasses
import io

import numpy as np
import pytest

from serve_app.errors import CalibrationError
from serve_app.routing import asked, fit_label
from serve_app.routing.calibrate import fit as fit_centroids
from serve_app.routing.calibrate import with_heads
from serve_app.routing.score import Calibration, dump, load
from tests.made_up_labels import embed, fitted, rows


def score(text: str, *, embedded: bool) -> float:
    one = asked.read(text)
    assert fitted().label is not None
    return fitted().label.score(one, embed([one.view])[0] if embedded else None)  # type: ignore[union-attr]


@pytest.mark.parametrize("embedded", [True, False])
def test_new_requests_are_told_apart_with_the_embedding_and_without(embedded: bool) -> None:
    assert score("prove that the moon is finite", embedded=embedded) >= 0.65
    assert score("translate the moon into german", embedded=embedded) < 0.65


def test_casing_does_not_matter() -> None:
    assert score("PROVE THAT THE MOON IS FINITE", embedded=False) == score("prove that the moon is finite", embedded=False)


def test_the_description_tells_all_three_accuracies() -> None:
    description = fitted().description
    assert description["cross_validated_accuracy"] > 0.9
    assert description["cross_validated_accuracy_without_embedding"] > 0.9
    assert description["centroids_cross_validated_accuracy"] > 0.6


def test_the_file_gives_the_same_scores_and_the_same_bytes() -> None:
    back = load(dump(fitted()))
    assert isinstance(back, Calibration)
    assert back.label is not None
    one = asked.read("why does the moon fail at scale")
    assert back.label.score(one, embed([one.view])[0]) == pytest.approx(score("why does the moon fail at scale", embedded=True), abs=1e-6)
    assert dump(back) == dump(fitted())


def test_the_same_rows_and_seed_give_the_same_bytes() -> None:
    prepared = fit_label.prepare(rows(), embed)
    again = with_heads(fit_centroids(prepared.vectors, rows().tiers, embedder="fake"), prepared, seed=0)
    assert dump(again) == dump(fitted())


def test_the_weights_solve_the_regression_of_these_labels_and_of_no_others() -> None:
    assert fitted().label is not None
    moved = [(*part[1:], part[0]) for part in (rows().tiers, rows().categories)]
    other = dataclasses.replace(rows(), tiers=moved[0], categories=moved[1])
    assert fit_label.residual(fitted().label, rows()) < 1e-3  # type: ignore[arg-type]
    assert fit_label.residual(fitted().label, other) > 0.1  # type: ignore[arg-type]


def test_an_embedding_of_another_length_is_refused() -> None:
    with pytest.raises(CalibrationError, match="shape"):
        fitted().label.score(asked.read("hello"), np.zeros(3, dtype=np.float32))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("label_full_weights", lambda value: value[:-1]),
        ("label_hand", lambda value: value[:, :-1]),
        ("label_scale", lambda value: value * 0),
        ("label_full_numbers", lambda value: value * np.nan),
        ("label_large", lambda value: value | True),
        ("label_starts", lambda value: value[::-1]),
        ("label_vectors", lambda value: value[:, :-1]),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(name: str, change: object) -> None:
    with np.load(io.BytesIO(dump(fitted())), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file}
    arrays[name] = change(arrays[name])  # type: ignore[operator]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with pytest.raises(CalibrationError, match=r"^[^\n]*calibration artefact[^\n]*$"):
        load(buffer.getvalue())


def test_a_request_near_to_nothing_gets_a_score_all_the_same() -> None:
    for text in ("", "\ud800", "0" * 20_000, "ᚠᚢᚦ"):
        assert 0.0 <= score(text, embedded=False) <= 1.0
