"""Signals to one score, and the artefact that says how."""

import dataclasses
import io
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import SignalState
from serve_app.errors import CalibrationError
from serve_app.routing.score import AssessmentHead, Logistic, combine, dump, final, is_decisive, load
from tests import fakes

FRACTION = st.floats(min_value=0.0, max_value=1.0)
ANY = st.floats(allow_nan=False, allow_infinity=False, width=32)


def test_logistic_is_a_half_at_its_middle_and_saturates_without_overflow() -> None:
    logistic = Logistic(scale=2.0, offset=-2.0)
    assert logistic(1.0) == 0.5
    assert logistic(2.0) == pytest.approx(1 / (1 + math.exp(-2)))
    assert (logistic(1e6), logistic(-1e6)) == (1.0, 0.0)


@given(ANY, ANY, ANY)
def test_logistic_stays_in_the_unit_interval(scale: float, offset: float, x: float) -> None:
    assert 0.0 <= Logistic(scale, offset)(x) <= 1.0


@given(ANY, ANY)
def test_logistic_grows_with_its_input(x: float, y: float) -> None:
    low, high = sorted((x, y))
    assert Logistic(0.5, 0.1)(low) <= Logistic(0.5, 0.1)(high)


def test_combine_weighs_what_is_there() -> None:
    assert combine(1.0, 0.5, 0.6) == pytest.approx(0.8)
    assert combine(0.3, None, 0.6) == 0.3
    assert combine(None, 0.4, 0.6) == 0.4
    assert combine(None, None, 0.6) is None


@given(FRACTION, FRACTION, FRACTION)
def test_combined_score_lies_between_its_signals(embedding: float, assessment: float, weight: float) -> None:
    value = combine(embedding, assessment, weight)
    assert value is not None
    assert min(embedding, assessment) - 1e-12 <= value <= max(embedding, assessment) + 1e-12


def test_decisive_is_at_least_the_margin_away() -> None:
    assert is_decisive(0.25, 0.5, 0.25)
    assert is_decisive(0.75, 0.5, 0.25)
    assert not is_decisive(0.7, 0.5, 0.25)
    assert not is_decisive(0.0, 0.5, 1.0)


def test_a_printed_score_is_the_score() -> None:
    score = final(
        embedding=0.123456789,
        embedding_state=SignalState.OK,
        assessment=None,
        assessment_state=SignalState.LATE,
        embedding_weight=0.6,
        calibration="c",
    )
    assert score.value == 0.123457
    assert (score.embedding, score.assessment_state, score.calibration) == (0.123456789, SignalState.LATE, "c")


def test_the_nearer_centroid_wins() -> None:
    fitted = fakes.calibration()
    assert fitted.embedding_score(fitted.simple) < 0.5 < fitted.embedding_score(fitted.complex)
    assert fitted.embedding_score(fakes.embedding_for(0.9)) == pytest.approx(0.9, abs=1e-6)


def test_an_embedding_of_another_size_is_refused() -> None:
    with pytest.raises(CalibrationError, match="shape"):
        fakes.calibration().embedding_score(np.zeros(3, dtype=np.float32))


# The router model's ratings

HEAD = AssessmentHead("router", 0.7)


def test_a_rating_is_moved_to_the_embedding_scores_scale() -> None:
    fitted = dataclasses.replace(fakes.calibration(), assessment=HEAD)
    assert fitted.assessment_score(0.5, "router") == pytest.approx(1 / (1 + math.exp(-0.7)))


def test_a_rating_of_another_router_model_stays_as_it_is() -> None:
    fitted = dataclasses.replace(fakes.calibration(), assessment=HEAD)
    assert fitted.assessment_score(0.5, "other") == 0.5
    assert fakes.calibration().assessment_score(0.5, "router") == 0.5


@given(FRACTION, FRACTION)
def test_a_moved_rating_keeps_its_order_and_its_interval(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= HEAD(low) <= HEAD(high) <= 1.0


def test_the_routers_head_survives_the_round_trip() -> None:
    data = dump(dataclasses.replace(fakes.calibration(), assessment=HEAD))
    assert load(data).assessment == HEAD
    assert dump(load(data)) == data


# The artefact


def test_an_artefact_survives_the_round_trip_byte_for_byte() -> None:
    data = dump(fakes.calibration())
    back = load(data, "fake")
    assert dump(back) == data
    assert (back.threshold, back.logistic, back.description) == (0.65, Logistic(1.0, 0.0), {"rows": 0})
    assert back.embedding_score(back.simple) == fakes.calibration().embedding_score(back.simple)


def test_the_hash_names_the_bytes() -> None:
    one, other = dump(fakes.calibration()), dump(fakes.calibration(threshold=0.5))
    assert load(one).sha256 == load(one).sha256 != load(other).sha256


def test_an_artefact_of_another_embedder_is_refused_in_one_line() -> None:
    with pytest.raises(CalibrationError, match="made with embedder fake, this one is nomic") as caught:
        load(dump(fakes.calibration()), "nomic")
    assert "\n" not in caught.value.message


GOOD = dump(fakes.calibration())


def npz(**changes: Any) -> bytes:
    """An artefact with parts replaced; `meta` entries by `meta_NAME`."""
    with np.load(io.BytesIO(GOOD)) as arrays:
        parts = dict(arrays)
    meta = json.loads(parts["meta"].tobytes())
    meta.update({key.removeprefix("meta_"): value for key, value in changes.items() if key.startswith("meta_")})
    parts["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    parts.update({key: value for key, value in changes.items() if not key.startswith("meta_")})
    buffer = io.BytesIO()
    np.savez(buffer, **parts)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Exploding:
    """Its pickle runs code when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "half a file": GOOD[: len(GOOD) // 2],
    "a zip's first bytes": b"PK\x03\x04 and nothing more",
    "a flipped byte": GOOD[:100] + bytes([GOOD[100] ^ 0xFF]) + GOOD[101:],
    "a single array": npy(np.zeros(3)),
    "a pickle": pickle.dumps(Exploding()),
    "a pickle inside": npz(simple=np.array([Exploding()], dtype=object)),
    "meta without JSON": npz(meta=np.frombuffer(b"{", dtype=np.uint8)),
    "meta is a list": npz(meta=np.frombuffer(b"[1]", dtype=np.uint8)),
    "no threshold": npz(meta_threshold=None),
    "a threshold above 1": npz(meta_threshold=1.5),
    "a scale that is no number": npz(meta_scale=math.nan),
    "a centroid that is no number": npz(simple=np.array([math.nan, 0.0], dtype=np.float32)),
    "centroids of different sizes": npz(simple=np.zeros(3, dtype=np.float32)),
    "centroids that are matrices": npz(simple=np.zeros((2, 2)), complex=np.zeros((2, 2))),
    "a router's shift that is no number": npz(meta_assessment={"model": "router", "shift": math.nan}),
    "a router's head without a shift": npz(meta_assessment={"model": "router"}),
    "another format": npz(meta_format=2),
    "another kind": npz(meta_kind="gain"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_artefact_is_refused(data: bytes) -> None:
    with pytest.raises(CalibrationError):
        load(data)


@given(st.integers(min_value=0, max_value=len(GOOD) - 1), st.integers(min_value=1, max_value=255))
def test_a_damaged_artefact_is_refused_or_still_usable(position: int, flip: int) -> None:
    """Not every byte of a zip matters; none may raise anything else."""
    data = bytearray(GOOD)
    data[position] ^= flip
    try:
        fitted = load(bytes(data))
    except CalibrationError:
        return
    assert 0.0 <= fitted.embedding_score(np.zeros(fitted.dim, dtype=np.float32)) <= 1.0


@given(st.lists(st.floats(min_value=-1.0, max_value=1.0), min_size=2, max_size=2), ANY, ANY)
def test_every_score_lies_in_the_unit_interval(embedding: list[float], scale: float, offset: float) -> None:
    fitted = dataclasses.replace(fakes.calibration(), logistic=Logistic(scale, offset))
    assert 0.0 <= fitted.embedding_score(np.array(embedding, dtype=np.float32)) <= 1.0
