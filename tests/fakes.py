"""Stand-ins for everything behind `ports.py`: scripted answers, recorded calls, no model and no waiting."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve_app.admission import Gate
from serve_app.attempts import Attempts
from serve_app.domain import (
    Attempt,
    Decision,
    DecisionQuery,
    Features,
    Feedback,
    Json,
    Kind,
    MirrorPair,
    Record,
    Request,
    Score,
    SelfAssessment,
    SignalState,
    Tier,
    TierLoad,
    Usage,
)
from serve_app.failover import Failover
from serve_app.guard import Guard
from serve_app.mirror import Mirror
from serve_app.observe.receipt import receipt
from serve_app.observe.tables import decision_row
from serve_app.pipeline import InForce, Pipeline
from serve_app.ports import Clock, Embedding
from serve_app.recorder import Recorder
from serve_app.routing.guards import TierLimits
from serve_app.routing.policy import of_live
from serve_app.routing.score import KIND_LABEL, Calibration, Logistic
from serve_app.scoring import Scorer
from serve_app.settings import (
    BreakerSettings,
    FailureSettings,
    Live,
    MirrorSettings,
    RetrySettings,
    RouterSettings,
    Supports,
    Timeouts,
    TokenPrice,
    WakingSettings,
)
from serve_app.stream import event
from serve_app.waking import Waking

PLAIN_FEATURES = Features(chars=5, turns=1, code=False, math=False, asks_code=False, asks_math=False)
PRICES = {Tier.SMALL: TokenPrice(input=0.25, output=0.5), Tier.LARGE: TokenPrice(input=1.0, output=2.0)}
FOREVER = 3600.0


class FakeClock:
    """Time that passes only when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now
        self.mono = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.time += seconds
        self.mono += seconds


@dataclass
class Pause:
    """In an engine's script: wait this long before going on."""

    seconds: float


@dataclass
class Call:
    kind: Kind
    body: Json
    request_id: str
    session: str | None
    trace: str | None = None
    closed: bool = False


class FakeEngine:
    """Plays its script: strings and dicts are yielded, a `Pause` waits, an exception is raised, a function is called."""

    def __init__(self, model: str, script: Iterable[Any] = (), clock: FakeClock | None = None) -> None:
        self.model = model
        self.script = list(script)
        self.clock = clock or FakeClock()
        self.calls: list[Call] = []
        self.is_ready = True
        self.sleeping = False
        self.wake_calls = 0
        self.woken = asyncio.Event()  # a test sets it: then a call for a replica is answered
        self.known_load: TierLoad | None = None
        self.tokens: int | BaseException = 10
        self.counted: list[Kind] = []
        self.used: dict[str, Usage] = {}  # what `settled` says, by request id

    async def generate(
        self, kind: Kind, body: Json, *, request_id: str, session: str | None = None, trace: str | None = None
    ) -> AsyncGenerator[str | Json]:
        call = Call(kind, body, request_id, session, trace)
        self.calls.append(call)
        try:
            for step in self.script:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, BaseException):
                    raise step
                elif callable(step):
                    step()
                else:
                    yield step
        finally:
            call.closed = True

    async def count(self, kind: Kind, body: Json) -> int:
        self.counted.append(kind)
        if isinstance(self.tokens, BaseException):
            raise self.tokens
        return self.tokens

    async def settled(self, request_id: str) -> Usage | None:
        return self.used.get(request_id)

    def load(self) -> TierLoad | None:
        return self.known_load

    def ready(self) -> bool:
        return self.is_ready and not self.sleeping

    def dormant(self) -> bool:
        return self.sleeping

    async def wake(self) -> None:
        self.wake_calls += 1
        await self.woken.wait()
        self.sleeping = False


class FakeSignal:
    """An answer, an exception or a wait; how often it was asked and how often it was left."""

    def __init__(self, answer: Any, delay_s: float = 0.0) -> None:
        self.answer = answer
        self.delay_s = delay_s
        self.texts: list[str] = []
        self.cancelled = 0

    async def give(self, text: str) -> Any:
        self.texts.append(text)
        try:
            if self.delay_s:  # without a delay nothing can be late, however slow the machine is
                await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class FakeEmbedder(FakeSignal):
    """Its embedding scores `score` under `calibration()`, or what `by_text` says of a text."""

    by_text: Callable[[str], float] | None = None

    def __init__(self, score: float | BaseException = 0.5, delay_s: float = 0.0) -> None:
        super().__init__(score if isinstance(score, BaseException) else embedding_for(score), delay_s)

    async def embed(self, text: str) -> Embedding:
        given: Embedding = await self.give(text)
        return given if self.by_text is None else embedding_for(self.by_text(text))


class FakeAssessor(FakeSignal):
    def __init__(self, rating: float | BaseException = 0.5, delay_s: float = 0.0) -> None:
        super().__init__(rating if isinstance(rating, BaseException) else SelfAssessment(rating, (0.1,) * 10), delay_s)

    async def assess(self, text: str) -> SelfAssessment:
        return await self.give(text)  # type: ignore[no-any-return]


def _newest(row: Json) -> tuple[float, str]:
    return row["created"], row["id"]


class FakeLedger:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.pairs: list[MirrorPair] = []
        self.forgotten: list[tuple[str | None, str | None]] = []
        self.queries: list[DecisionQuery] = []
        self.told: list[Feedback] = []

    def record(self, record: Record) -> None:
        self.records.append(record)

    def mirrored(self, pair: MirrorPair) -> None:
        self.pairs.append(pair)

    async def get(self, decision_id: str) -> Json | None:
        return next((receipt(r) for r in self.records if r.id == decision_id), None)

    async def feedback(self, given: Feedback) -> None:
        self.told.append(given)

    async def page(self, query: DecisionQuery) -> list[Json]:
        """Of the filters those that tests need: key, session, since, and where to go on."""
        self.queries.append(query)
        rows = [decision_row(receipt(r)) for r in self.records if query.key in (None, r.key) and query.session in (None, r.session)]
        rows = [row for row in rows if query.since is None or row["created"] >= query.since]
        rows = [row for row in rows if query.before is None or (row["created"], row["id"]) < query.before]
        rows.sort(key=_newest, reverse=True)
        return [{name: value for name, value in row.items() if name != "receipt"} for row in rows[: query.limit]]

    async def forget(self, key: str | None, session: str | None) -> int:
        self.forgotten.append((key, session))
        return len([r for r in self.records if key in (None, r.key) and session in (None, r.session)])


@dataclass
class FakeObserver:
    decisions: list[Decision] = field(default_factory=list)
    faults: list[tuple[str, SignalState]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    skipped: list[Tier] = field(default_factory=list)
    retries: list[Tier] = field(default_factory=list)
    fallbacks: list[Tier] = field(default_factory=list)
    escalations: int = 0
    refusals: list[str] = field(default_factory=list)
    mirrors: list[str] = field(default_factory=list)
    comparisons: list[bool] = field(default_factory=list)
    told_of: list[Feedback] = field(default_factory=list)

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def signal_fault(self, signal: str, state: SignalState) -> None:
        self.faults.append((signal, state))

    def attempted(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def retried(self, tier: Tier) -> None:
        self.retries.append(tier)

    def fell_back(self, tier: Tier) -> None:
        self.fallbacks.append(tier)

    def finished(self, record: Record) -> None:
        self.records.append(record)

    def skipped_chunk(self, tier: Tier) -> None:
        self.skipped.append(tier)

    def escalated(self) -> None:
        self.escalations += 1

    def refused(self, why: str) -> None:
        self.refusals.append(why)

    def mirrored(self, what: str) -> None:
        self.mirrors.append(what)

    def compared(self, pair: MirrorPair, *, same: bool) -> None:
        self.comparisons.append(same)

    def told(self, feedback: Feedback) -> None:
        self.told_of.append(feedback)


def calibration(threshold: float = 0.65) -> Calibration:
    """Two centroids on the axes of a plane: `embedding_for` gives the embedding of any score."""
    simple, hard = np.array([1.0, 0.0], dtype=np.float32), np.array([0.0, 1.0], dtype=np.float32)
    return Calibration(KIND_LABEL, "fake", simple, hard, Logistic(1.0, 0.0), threshold, 0.5, {"rows": 0}, "fake-hash")


def embedding_for(score: float) -> Embedding:
    """|e - simple|^2 - |e - hard|^2 = 2 (e_1 - e_0) is the logit of the score."""
    return np.array([0.0, np.log(score / (1 - score)) / 2], dtype=np.float32)


def make_request(text: str = "hello", **changes: Any) -> Request:
    body = {"messages": [{"role": "user", "content": text}]}
    fields: dict[str, Any] = {"id": "tw-1", "kind": "chat", "body": body, "text": text, "features": PLAIN_FEATURES, "model": "auto"}
    return Request(**{**fields, **changes})


def make_score(value: float | None) -> Score:
    return Score(value=value, embedding=value, embedding_state=SignalState.OK if value is not None else SignalState.FAILED)


def plain_answer(model: str, prompt_tokens: int = 10, completion_tokens: int = 20, text: str = "Hi.") -> Json:
    """A chat completion as an engine gives it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": usage(prompt_tokens, completion_tokens),
    }


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + completion_tokens, "completion_tokens": completion_tokens}


def chunk(text: str | None, completion_tokens: int, *, index: int = 0, finish: str | None = None, prompt_tokens: int = 10) -> str:
    """One event of a chat stream as vLLM writes it, with the usage so far."""
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({**STREAM_HEAD, "choices": [choice], "usage": usage(prompt_tokens, completion_tokens)})


def usage_chunk(prompt_tokens: int, completion_tokens: int) -> str:
    return event({**STREAM_HEAD, "choices": [], "usage": usage(prompt_tokens, completion_tokens)})


STREAM_HEAD: Json = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
DONE = "data: [DONE]\n\n"


def stream_script(*texts: str, prompt_tokens: int = 10) -> list[str]:
    """A whole stream: a chunk per text (one token each), a finishing chunk, the usage chunk, the end."""
    chunks = [chunk(text, number, prompt_tokens=prompt_tokens) for number, text in enumerate(texts, start=1)]
    last = chunk(None, len(texts), finish="stop", prompt_tokens=prompt_tokens)
    return [*chunks, last, usage_chunk(prompt_tokens, len(texts)), DONE]


def failover(clock: Clock, *, most: int = 2, degraded: bool = False, failures: int = 5) -> Failover:
    """With waits that a test does not feel."""
    retry = RetrySettings(most=most, backoff_s=0.001, max_backoff_s=0.001)
    return Failover(FailureSettings(retry=retry, breaker=BreakerSettings(failures=failures), degraded_answers=degraded), clock, lambda: 0.5)


class World:
    """A pipeline over fakes, each of which a test may change before it asks."""

    def __init__(self, *, score: float | BaseException = 0.1, live: Live | None = None, timeouts: Timeouts | None = None) -> None:
        self.clock = FakeClock()
        self.small = FakeEngine("small-model", [plain_answer("small-model")], self.clock)
        self.large = FakeEngine("large-model", [plain_answer("large-model")], self.clock)
        self.embedder = FakeEmbedder(score)
        self.assessor = FakeAssessor(0.1)
        self.ledger = FakeLedger()
        self.observer = FakeObserver()
        self.live = live or Live()
        self.failover = failover(self.clock)
        self.limits = {tier: TierLimits(4096, Supports(images=True)) for tier in Tier}
        self.timeouts = timeouts or Timeouts(request_s=5.0, first_token_s=5.0, between_tokens_s=5.0)
        self.gates = {tier: Gate(1000, 60.0, self.clock, lambda: None) for tier in Tier}
        self.shift = 0.0
        self.store_prompts = False
        self.waking = WakingSettings()
        self.recorder: Recorder
        self.mirror: Mirror
        self.scorer: Scorer

    @property
    def engines(self) -> dict[Tier, FakeEngine]:
        return {Tier.SMALL: self.small, Tier.LARGE: self.large}

    def in_force(self) -> InForce:
        return InForce(self.live, of_live(self.live, self.scorer.calibration.threshold, self.shift), self.scorer)

    def pipeline(self, router: RouterSettings | None = None) -> Pipeline:
        self.recorder = Recorder(
            engines=self.engines,
            prices=PRICES,
            ledger=self.ledger,
            observer=self.observer,
            clock=self.clock,
            fingerprint=lambda text: f"hash of {len(text)}",
            store_prompts=self.store_prompts,
        )
        self.mirror = Mirror(engines=self.engines, prices=PRICES, ledger=self.ledger, observer=self.observer, settings=MirrorSettings())
        self.scorer = make_scorer(self, router)
        waking = Waking(self.engines, self.waking)
        attempts = Attempts(
            engines=self.engines,
            failover=self.failover,
            gates=self.gates,
            timeouts=self.timeouts,
            recorder=self.recorder,
            observer=self.observer,
            clock=self.clock,
            early_exit=lambda: self.live.early_exit,
            waking=waking,
        )
        return Pipeline(
            guard=Guard(self.engines, self.limits),
            attempts=attempts,
            recorder=self.recorder,
            mirror=self.mirror,
            engines=self.engines,
            observer=self.observer,
            clock=self.clock,
            in_force=self.in_force,
            waking=waking,
        )


def make_scorer(world: World, settings: RouterSettings | None = None) -> Scorer:
    return Scorer(
        embedder=world.embedder,
        assessor=world.assessor,
        calibration=calibration(),
        settings=settings or RouterSettings(embed_deadline_s=5.0, assess_deadline_s=5.0),
        observer=world.observer,
        clock=world.clock,
    )


async def until(condition: Callable[[], object], timeout_s: float = 2.0) -> None:
    """Let the loop run until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition is anything, no event stands for it
            await asyncio.sleep(0.001)


async def read_all(events: AsyncGenerator[str] | None) -> str:
    assert events is not None
    return "".join([text async for text in events])


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(2.0):
        return await awaitable
