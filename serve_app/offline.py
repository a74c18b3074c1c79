"""What the command line does without a running endpoint: calibrate and score."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.calibrations import builtin, named
from serve_app.domain import Json, Request, Score, SignalState
from serve_app.embedding import SentenceEmbedder, identity
from serve_app.errors import CalibrationError, RequestError
from serve_app.evaluate import gain, labelled, report
from serve_app.gateway import openai
from serve_app.ports import Embedding
from serve_app.routing import calibrate as fitting
from serve_app.routing import features, fit_label, lexical, neighbours, policy
from serve_app.routing.heads import Heads
from serve_app.routing.orders import without_orders
from serve_app.routing.score import Artefact, Calibration, dump, final, of_gain
from serve_app.settings import EmbedderSettings, Settings, parse

__all__ = ["calibrate", "dump", "score_lines"]
Progress = Callable[[list[Any], str], Iterator[Any]]


def calibrate(data: list[Path], *, profile: str, seed: int, rate: bool, progress: Progress) -> Calibration:
    """Fit on the rows of `data`, or on the packaged fit part; `rate` asks the profile's router model too.

    Raises `CalibrationError`.
    """
    settings = parse({"profile": profile})
    rows = [row for path in data for row in labelled.read(path)] if data else labelled.split(labelled.packaged())[0]
    if not rows:
        raise CalibrationError("there are no labelled rows to fit on")
    embedder = SentenceEmbedder(settings.embedder)
    texts = [features.cut(row.prompt, settings.router.max_chars) for row in rows]
    labels = fit_label.Labels([row.prompt for row in rows], [row.expected_tier for row in rows], [row.category for row in rows])
    prepared = fit_label.prepare(
        labels, lambda views: np.stack([embedder.encode([view])[0] for view in progress(list(views), "embedding")])
    )
    centroids = fitting.fit(
        prepared.vectors,
        labels.tiers,
        embedder=identity(settings.embedder),
        seed=seed,
        source=", ".join(path.name for path in data) or "packaged labelled prompts, fit part",
        ratings=_rate(settings, texts, progress) if rate else None,
        texts=texts,
    )
    return fitting.with_heads(centroids, prepared, seed=seed)


def calibrate_outcomes(data: list[Path], asked: gain.Asked, *, profile: str, seed: int, embed: bool, progress: Progress) -> Heads:
    """Fit the learned heads on rows with scores of both models. Raises `CalibrationError`."""
    settings = parse({"profile": profile})
    embedded = embed_with(settings, progress) if embed else None
    name = identity(settings.embedder) if embed else ""
    return gain.calibrate(data, asked, settings, seed=seed, embed=embedded, embedder=name)


def evaluate(
    data: list[Path],
    *,
    calibration: Path | None,
    train_elsewhere: bool,
    centroids: bool,
    embed: bool,
    profile: str,
    seed: int,
    progress: Progress,
    embedded: gain.Embed | None = None,
) -> Json:
    """`embedded` embeds in the place of the profile's embedder. Raises `CalibrationError`."""
    settings = parse({"profile": profile})
    name = identity(settings.embedder)
    wanted = report.Wanted(
        calibration=None if calibration is None else named(str(calibration), name),
        train_elsewhere=train_elsewhere,
        centroids=builtin(name) if centroids else None,
        with_embedding=embed,
        embedder=name if embed else "",
        seed=seed,
    )
    return report.evaluate(data, wanted, settings, embed=embedded or embed_with(settings, progress), progress=progress)


def embed_with(settings: Settings, progress: Progress) -> gain.Embed:
    """The model is loaded when it is asked for the first time."""

    def embedded(prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        model = SentenceEmbedder(settings.embedder)
        cuts = [features.cut(prompt, settings.router.max_chars) for prompt in prompts]
        return np.stack([model.encode([text])[0] for text in progress(cuts, "embedding")])

    return embedded


def _rate(settings: Settings, texts: list[str], progress: Progress) -> fitting.Ratings:
    """Ratings through transformers, without vLLM, by the prompt that serving uses."""
    from serve_app.demo.rating import Rater  # noqa: PLC0415 - torch and transformers take seconds to import

    rater = Rater(settings.router_llm.model.source)
    return fitting.Ratings(settings.router_llm.model.id, [rater(text) for text in progress(texts, "rating")])


def score_lines(lines: Iterable[str], *, calibration: Path | None, profile: str) -> Iterator[Json]:
    """Score JSONL rows without self-assessment, by either kind of artefact. Raises `RequestError` naming the line at fault."""
    settings = parse({"profile": profile})
    name = identity(settings.embedder)
    fitted = named("builtin" if calibration is None else str(calibration), name)
    embedder = LazyEmbedder(settings.embedder)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _score_row(_row(line, number), fitted, embedder, settings)


class LazyEmbedder:
    """Owns the model from the first text on: an artefact of hashed words never loads one."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings

    @cached_property
    def _model(self) -> SentenceEmbedder:
        return SentenceEmbedder(self._settings)

    def encode(self, texts: list[str]) -> list[Embedding]:
        return self._model.encode(texts)


def _row(line: str, number: int) -> Json:
    try:
        row = json.loads(line)
    except ValueError:
        raise RequestError(f"line {number}: not valid JSON") from None
    asked = {key: row[key] for key in ("prompt", "messages") if row.get(key) is not None} if isinstance(row, dict) else {}
    if not asked or "id" not in row:
        raise RequestError(f"line {number}: needs id and prompt or messages")
    try:
        json.dumps(asked, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
        openai.check(openai.RouteBody, asked)
    except UnicodeEncodeError:
        raise RequestError(f"line {number}: not valid Unicode") from None
    except RequestError as error:
        raise RequestError(f"line {number}: {error.message}") from None
    return {"id": row["id"], **asked}


def _score_row(row: Json, fitted: Artefact, embedder: LazyEmbedder, settings: Settings) -> Json:
    text = features.scored_text(row)
    request = Request(str(row["id"]), "chat", row, text, features.from_body(text, row), "auto")
    rules = policy.of_live(settings.live, fitted.threshold)
    score = scored(text, fitted, embedder, settings)
    decision = policy.decide_early(rules, request) or policy.decide(rules, request, score)
    return {"id": row["id"], "score": score.value, "tier": decision.tier.value, "reason": decision.reason.value}


def scored(text: str, fitted: Artefact, embedder: LazyEmbedder, settings: Settings) -> Score:
    """Score one turn as serving does, without self-assessment."""
    return _by_heads(text, fitted, embedder, settings) if isinstance(fitted, Heads) else _by_label(text, fitted, embedder, settings)


def _by_label(text: str, fitted: Calibration, embedder: LazyEmbedder, settings: Settings) -> Score:
    whole = features.cut(text, settings.router.max_chars) if fitted.label is None else lexical.scanned(text)
    texts = [each for each in dict.fromkeys((whole, without_orders(whole))) if each] or [whole]  # as serving scores it
    readings = [one for each in texts for one in fitted.read(each, settings.router.max_chars)]
    return final(
        embedding=fitted.highest(readings, embedder.encode([one.embedded for one in readings])),
        embedding_state=SignalState.OK,
        assessment=None,
        assessment_state=SignalState.SKIPPED,
        embedding_weight=settings.live.embedding_weight,
        calibration=fitted.sha256,
        novelty=fitted.novelty(features.cut(text, settings.router.max_chars)),
    )


def _by_heads(text: str, fitted: Heads, embedder: LazyEmbedder, settings: Settings) -> Score:
    """As serving scores it: the whole text and what is left of it without what addresses the router."""
    read = lexical.scanned(text)
    plain = without_orders(read)
    texts = [text] if plain is read or not plain else [text, plain]
    judged, state = [fitted.judge(each) for each in texts], SignalState.SKIPPED
    for i, each in enumerate(texts):
        if not fitted.clear(judged[i].score, fitted.threshold):
            embedding = embedder.encode([features.cut(neighbours.excerpt(each), settings.router.max_chars)])[0]
            judged[i], state = fitted.judge(each, embedding), SignalState.OK
    return of_gain(max(judged, key=lambda one: one.score), state, fitted.sha256)
