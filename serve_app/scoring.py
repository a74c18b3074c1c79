"""Ask the embedder and the router LLM at the same time, each under its deadline, and make one score of the answers."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TypeVar

from serve_app.domain import Score, SignalState
from serve_app.ports import Clock, Embedder, Observer, SelfAssessor, asked_to_stop
from serve_app.resilience import Breaker
from serve_app.routing import lexical
from serve_app.routing import score as scoring
from serve_app.routing.features import cut
from serve_app.routing.heads import Heads, Judged
from serve_app.routing.neighbours import excerpt
from serve_app.routing.orders import without_orders
from serve_app.settings import Live, RouterSettings

Key = tuple[bytes, Live, float]
T = TypeVar("T")
FAULTS = (SignalState.LATE, SignalState.FAILED)


class Scorer:
    """Owns the signals' breakers and the scores that it remembers, keyed by content and by the settings that they were made with.

    The same text under the same settings gives the same score: a rating that came although the embedding was decisive
    is not used, whichever arrived first. Only a late or failed signal changes it, and the score says so.

    A `gain` calibration asks no router LLM, and the embedder only where it was fitted with one and the text alone is not clear.
    Without an answer of the embedder the text alone decides.
    """

    def __init__(
        self,
        *,
        embedder: Embedder,
        assessor: SelfAssessor,
        calibration: scoring.Artefact,
        settings: RouterSettings,
        observer: Observer,
        clock: Clock,
        router_model: str = "",
    ) -> None:
        self._router_model = router_model
        self._embedder = embedder
        self._assessor = assessor
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._begin(calibration)
        self._breakers = {signal: Breaker(settings.breaker, clock) for signal in ("embedding", "assessment")}

    def with_calibration(self, calibration: scoring.Artefact) -> "Scorer":
        """The same signals and breakers under another artefact; nothing is remembered. This one goes on as it is."""
        other = copy(self)
        other._begin(calibration)  # noqa: SLF001 - of its own kind
        return other

    def _begin(self, calibration: scoring.Artefact) -> None:
        self.calibration = calibration
        self._known: OrderedDict[Key, Score] = OrderedDict()

    async def score(self, text: str, live: Live, threshold: float) -> Score:
        """Score one turn. What it says to the router itself cannot lower its score (see `routing/orders.py`)."""
        text, read = self._scored(text)
        plain = without_orders(read)
        if plain is read or not plain:
            return await self._remembered(text, live, threshold)
        both = await asyncio.gather(*(self._remembered(each, live, threshold) for each in (text, plain)))
        return max(both, key=lambda score: -1.0 if score.value is None else score.value)

    def _scored(self, text: str) -> tuple[str, str]:
        """What is scored, and what of it is read: the learned heads look at both ends of a long text and at its length."""
        if isinstance(self.calibration, Heads):
            return text, lexical.scanned(text)
        if self.calibration.label is not None:
            text = lexical.scanned(text)
            return text, text
        text = cut(text, self._settings.max_chars)
        return text, text

    async def _remembered(self, text: str, live: Live, threshold: float) -> Score:
        """A remembered score costs nothing; one with a late or failed signal is not remembered."""
        key = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), live, threshold)
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        heads = self.calibration
        score = await (self._gain(heads, text, threshold) if isinstance(heads, Heads) else self._score(heads, text, live, threshold))
        if score.value is not None and score.embedding_state not in FAULTS and score.assessment_state not in FAULTS:
            self._known[key] = replace(score, embed_seconds=0.0, assess_seconds=0.0)
            while len(self._known) > self._settings.cache_size:
                self._known.popitem(last=False)
        return score

    async def _gain(self, heads: Heads, text: str, threshold: float) -> Score:
        alone = self._judge_alone(heads, text)
        if alone is None or heads.clear(alone.score, threshold):
            return scoring.of_gain(alone, SignalState.SKIPPED, heads.sha256)
        started = self._clock.monotonic()
        judged, state = await self._signal("embedding", partial(self._judge_embedded, heads), text)
        self._report("embedding", state)
        return scoring.of_gain(alone if judged is None else judged, state, heads.sha256, self._clock.monotonic() - started)

    def _judge_alone(self, heads: Heads, text: str) -> Judged | None:
        try:
            return _checked(heads.judge(text))
        except Exception:  # noqa: BLE001 - the outer boundary of the router: counted, and answered by the large tier
            self._report("heads", SignalState.FAILED)
            return None

    async def _judge_embedded(self, heads: Heads, text: str) -> Judged:
        embedding = await self._embedder.embed(cut(excerpt(text), self._settings.max_chars))
        return _checked(heads.judge(text, embedding))

    async def _score(self, calibration: scoring.Calibration, text: str, live: Live, threshold: float) -> Score:
        started = self._clock.monotonic()
        assess = partial(self._assess, calibration)
        asked = cut(text, self._settings.max_chars)
        assessing = asyncio.create_task(self._signal("assessment", assess, asked)) if live.self_assessment else None
        try:
            embedding, embedding_state = await self._fitted(calibration, text)
            embedded = self._clock.monotonic()
            decisive = embedding is not None and scoring.is_decisive(embedding, threshold, live.decisive_margin)
            assessment, assessment_state = None, SignalState.SKIPPED
            if assessing is not None and not decisive:
                assessment, assessment_state = await assessing
            self._report("embedding", embedding_state)
            self._report("assessment", assessment_state)
            return scoring.final(
                embedding=embedding,
                embedding_state=embedding_state,
                assessment=assessment,
                assessment_state=assessment_state,
                embedding_weight=live.embedding_weight,
                calibration=calibration.sha256,
                embed_seconds=embedded - started,
                assess_seconds=self._clock.monotonic() - embedded,
                novelty=_novelty(calibration, asked),
            )
        finally:
            if assessing is not None:
                assessing.cancel()

    async def _fitted(self, calibration: scoring.Calibration, text: str) -> tuple[float | None, SignalState]:
        """The artefact's own score. Where the embedder is late or failed, by the heads that do without, if there are any."""
        try:
            readings = calibration.read(text, self._settings.max_chars)
        except Exception:  # noqa: BLE001 - the outer boundary of the router: counted by the caller, answered by the other signal
            return None, SignalState.FAILED
        score, state = await self._signal("embedding", partial(self._embed, calibration, readings), text)
        return (_without(calibration, readings) if score is None else score), state

    async def _signal(self, name: str, ask: Callable[[str], Awaitable[T]], text: str) -> tuple[T | None, SignalState]:
        """The signal within its deadline. One that failed again and again rests: nobody waits out the deadline of the dead."""
        breaker = self._breakers[name]
        ticket = breaker.admit()
        if ticket is None:
            return None, SignalState.FAILED
        deadline = self._settings.embed_deadline_s if name == "embedding" else self._settings.assess_deadline_s
        try:
            value, state = await _within(ask, text, deadline)
        except asyncio.CancelledError:
            breaker.abandoned(ticket)
            raise
        (breaker.succeeded if state is SignalState.OK else breaker.failed)(ticket)
        return value, state

    async def _embed(self, calibration: scoring.Calibration, readings: Sequence[scoring.Reading], _: str) -> float | None:
        vectors = [await self._embedder.embed(one.embedded) for one in readings]  # nearly always one
        return _fraction_or_none(calibration.highest(readings, vectors))

    async def _assess(self, calibration: scoring.Calibration, text: str) -> float:
        return _fraction(calibration.assessment_score((await self._assessor.assess(text)).rating, self._router_model))

    def _report(self, signal: str, state: SignalState) -> None:
        if state in FAULTS:
            self._observer.signal_fault(signal, state)


def _fraction(value: float) -> float:
    """A signal outside [0, 1] has failed too. NaN is below every threshold: it would send everything to the small tier."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"a signal of {value}")
    return value


def _fraction_or_none(value: float | None) -> float | None:
    return None if value is None else _fraction(value)


def _without(calibration: scoring.Calibration, readings: Sequence[scoring.Reading]) -> float | None:
    """The score without an embedding; None where the artefact has none, or it fails too."""
    try:
        return _fraction_or_none(calibration.highest(readings, None))
    except Exception:  # noqa: BLE001 - the outer boundary of the router: the embedding's fault is counted already
        return None


def _novelty(calibration: scoring.Calibration, text: str) -> float | None:
    try:
        return calibration.novelty(text)
    except Exception:  # noqa: BLE001 - the outer boundary of the router: a request without this mark is answered all the same
        return None


def _checked(judged: Judged) -> Judged:
    for value in (judged.score, judged.weak, judged.strong):
        _fraction(value)
    return judged


async def _within(ask: Callable[[str], Awaitable[T]], text: str, seconds: float) -> tuple[T | None, SignalState]:
    """The signal, or None and why there is none. The router may fail in any way: it must never fail a request."""
    try:
        async with asyncio.timeout(seconds):
            return await ask(text), SignalState.OK
    except TimeoutError:
        return None, SignalState.LATE
    except asyncio.CancelledError:
        if asked_to_stop():
            raise
        return None, SignalState.FAILED
    except Exception:  # noqa: BLE001 - the outer boundary of the router: counted by the caller, answered by the other signal
        return None, SignalState.FAILED
