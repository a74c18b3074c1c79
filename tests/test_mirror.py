"""Mirrored answers: beside the request, bounded, counted, and never in its way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from serve_app import mirror as module
from serve_app.domain import Client, Decision, Json, Kind, MirrorPair, Mode, Reason, Request, Tier, TierLoad, Usage
from serve_app.errors import EngineFailed
from serve_app.mirror import Mirror, text_of
from serve_app.pipeline import Pipeline
from serve_app.settings import Live, MirrorSettings
from tests.fakes import (
    FOREVER,
    PRICES,
    FakeClock,
    FakeEngine,
    FakeLedger,
    FakeObserver,
    Pause,
    World,
    chunk,
    make_request,
    plain_answer,
    read_all,
    soon,
    stream_script,
    until,
)

ALL = 1.0
SMALL = Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65)


class Setting:
    """A mirror over fakes; requests were answered by the small tier, the large one mirrors."""

    def __init__(self, script: Any = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.large = FakeEngine("large-model", [plain_answer("large-model", 10, 20, "Better.")] if script is None else script)
        self.small = FakeEngine("small-model", [plain_answer("small-model", 10, 20, "Cheaper.")])
        self.ledger = FakeLedger()
        self.observer = FakeObserver()
        self.mirror = Mirror(
            engines={Tier.SMALL: self.small, Tier.LARGE: self.large},
            prices=PRICES,
            ledger=self.ledger,
            observer=self.observer,
            settings=MirrorSettings(**settings),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Setting"]:
        task = asyncio.create_task(self.mirror.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def became(self, answer: Any, request: Request | None = None, decision: Decision = SMALL) -> list[str]:
        """What is counted when one answer is offered."""
        async with self.running():
            self.mirror.offer(request or make_request(), decision, answer, 0.0)
            await until(lambda: self.observer.mirrors)
        return self.observer.mirrors


def given(text: str = "Cheap.") -> Json:
    return plain_answer("small-model", text=text)


# --- the sample


def sampled(setting: Setting, count: int, share: float) -> list[bool]:
    return [setting.mirror.wants(make_request(id=f"tw-{number}"), SMALL, share) for number in range(count)]


def test_a_share_of_the_requests_is_sampled_and_the_rest_is_counted() -> None:
    setting = Setting()
    taken = sum(sampled(setting, 2000, 0.25))
    assert 440 <= taken <= 560
    assert setting.observer.mirrors == ["not_sampled"] * (2000 - taken)


def test_the_same_request_gets_the_same_verdict_and_a_larger_share_holds_the_smaller_one() -> None:
    few, again, many = (sampled(Setting(), 500, share) for share in (0.1, 0.1, 0.3))
    assert few == again
    assert all(more for one, more in zip(few, many, strict=True) if one)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_are_exact(share: float) -> None:
    assert set(sampled(Setting(), 300, share)) == {share == 1.0}


def test_a_mirror_that_is_off_counts_nothing() -> None:
    setting = Setting()
    sampled(setting, 10, 0.0)
    assert setting.observer.mirrors == []


ROUTED = "score_above, score_below, heuristic_math_code, conversation, tool_loop, novelty, capacity, escalated_low_confidence"


@pytest.mark.parametrize("reason", Reason)
def test_only_what_the_router_decided_is_mirrored(reason: Reason) -> None:
    setting = Setting()
    assert setting.mirror.wants(make_request(), replace(SMALL, reason=reason), ALL) is (reason.value in ROUTED.split(", "))
    assert setting.observer.mirrors == []


@pytest.mark.parametrize(
    ("request_changes", "decision_changes", "wanted"),
    [
        ({}, {"mode": Mode.SHADOW, "chosen": Tier.LARGE}, True),
        ({}, {"mode": Mode.CANARY}, True),
        ({}, {"mode": Mode.PROBE}, False),
        ({"explicit_tier": Tier.SMALL}, {}, False),
        ({}, {"allowed": (Tier.SMALL,)}, False),
        ({"client": Client(tiers=(Tier.SMALL,))}, {}, False),
    ],
)
def test_what_a_mirror_must_leave_alone(request_changes: Any, decision_changes: Any, wanted: bool) -> None:
    assert Setting().mirror.wants(make_request(**request_changes), replace(SMALL, **decision_changes), ALL) is wanted


# --- a mirrored answer


async def test_the_other_tier_answers_the_same_request_and_both_answers_are_kept() -> None:
    setting = Setting()
    request = make_request("hello", session="s-1", client=Client(key="team-a"), stream=True)
    assert await setting.became(given(), request) == ["mirrored"]
    assert setting.ledger.pairs == [
        MirrorPair(
            decision_id="tw-1",
            created=0.0,
            session="s-1",
            key="team-a",
            prompt=request.body,
            tier=Tier.SMALL,
            answer="Cheap.",
            mirror_tier=Tier.LARGE,
            mirror_model="large-model",
            mirror_answer="Better.",
            mirror_usage=Usage(10, 20, 0),
            mirror_cost_usd=0.00005,
        )
    ]
    (call,) = setting.large.calls
    assert (call.kind, call.request_id, call.session, call.closed) == ("chat", "tw-1-m", None, True)
    assert call.body == {**request.body, "model": "large-model", "stream": False}


@pytest.mark.parametrize(
    ("mirrored", "same"), [("Cheap.", True), (" cheap\n", True), ("Cheap - , !", True), ("Cheaper.", False), ("Cheap. Really.", False)]
)
async def test_both_answers_are_compared_without_case_spaces_and_punctuation(mirrored: str, same: bool) -> None:
    setting = Setting([plain_answer("large-model", text=mirrored)])
    assert await setting.became(given()) == ["mirrored"]
    assert setting.observer.comparisons == [same]


async def test_a_large_answer_is_mirrored_by_the_small_tier() -> None:
    setting = Setting()
    assert await setting.became(given(), decision=Decision(Tier.LARGE, Reason.SCORE_ABOVE, 0.65)) == ["mirrored"]
    assert [(found.tier, found.mirror_tier, found.mirror_answer) for found in setting.ledger.pairs] == [
        (Tier.LARGE, Tier.SMALL, "Cheaper.")
    ]


async def test_a_streams_text_is_read_from_its_events() -> None:
    setting = Setting()
    assert await setting.became("".join(stream_script("One", " two", " three."))) == ["mirrored"]
    assert setting.ledger.pairs[0].answer == "One two three."


async def test_a_completions_text_is_read_too() -> None:
    body = {"choices": [{"index": 0, "text": "Once."}]}
    setting = Setting([{**body, "usage": {}}])
    request = make_request(kind="completion", body={"prompt": "Tell"})
    assert await setting.became(body, request) == ["mirrored"]
    assert (setting.ledger.pairs[0].answer, setting.ledger.pairs[0].mirror_answer) == ("Once.", "Once.")


def completion_event(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'text': text}]})}\n\n"


DONE = "data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("kind", "answer", "text"),
    [
        ("completion", completion_event("a") + completion_event("b") + DONE, "ab"),
        ("chat", chunk("line\u2028break\x85s", 2).replace("\\u2028", "\u2028") + DONE, "line\u2028break\x85s"),
        ("chat", "data: {broken}\n\n" + chunk("a", 1) + DONE, "a"),
        ("chat", chunk("cut off", 1), None),
        ("chat", DONE, None),
        ("chat", {"choices": []}, None),
        ("chat", {"choices": [{"message": {"content": None, "tool_calls": [{}]}}]}, None),
        ("chat", given(""), None),
        ("chat", given("x" * module.MAX_TEXT), "x" * module.MAX_TEXT),
        ("chat", given("x" * (module.MAX_TEXT + 1)), None),
    ],
)
def test_the_text_of_an_answer_is_whole_or_nothing(kind: Kind, answer: str | Json, text: str | None) -> None:
    assert text_of(kind, answer) == text


# --- what cannot be judged


@pytest.mark.parametrize(
    ("body", "features"),
    [
        ({"n": 2}, {}),
        ({"response_format": {"type": "json_schema"}}, {}),
        ({"response_format": {"type": "structural_tag"}}, {}),
        ({}, {"tools": True}),
        ({}, {"json_schema": True}),
        ({}, {"images": True}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": "data:"}]}]}, {}),
        ({"messages": [{"role": "tool", "content": "42"}]}, {}),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}, {"role": "user", "content": "go on"}]}, {}),
        ({"prompt": ["one", "two"]}, {}),
        ({"messages": [{"role": "user", "content": "x" * 256 * 1024}]}, {}),
    ],
)
async def test_what_is_no_plain_text_is_unjudgeable_and_asks_nobody(body: Json, features: Json) -> None:
    setting = Setting()
    plain = make_request()
    request = replace(plain, body={**plain.body, **body}, features=replace(plain.features, **features))
    setting.mirror.offer(request, SMALL, given(), 0.0)
    assert (setting.observer.mirrors, setting.large.calls) == (["unjudgeable"], [])


@pytest.mark.parametrize(
    "body",
    [{"response_format": {"type": "text"}}, {"n": 1}, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}],
)
async def test_plain_text_by_any_name_is_judgeable(body: Json) -> None:
    assert await Setting().became(given(), make_request(body={**make_request().body, **body})) == ["mirrored"]


@pytest.mark.parametrize("answer", [given(""), "".join(stream_script("never", " ended")[:-1])])
async def test_an_answer_without_a_whole_text_asks_nobody(answer: str | Json) -> None:
    setting = Setting()
    assert await setting.became(answer) == ["unjudgeable"]
    assert setting.large.calls == []


async def test_a_stream_above_the_bound_is_not_even_kept() -> None:
    setting = Setting()
    setting.mirror.offer(make_request(), SMALL, "x" * (module.MAX_EVENTS + 1), 0.0)
    assert setting.observer.mirrors == ["unjudgeable"]


async def test_a_mirror_without_text_is_no_pair() -> None:
    setting = Setting([plain_answer("large-model", text="")])
    assert await setting.became(given()) == ["unjudgeable"]
    assert setting.ledger.pairs == []


# --- what has no place


def load(waiting: int) -> TierLoad:
    return TierLoad(replicas=1, waiting=waiting, running=3, capacity=4, as_of=0.0)


@pytest.mark.parametrize(("known", "what"), [(load(0), "mirrored"), (load(1), "shed"), (None, "mirrored")])
async def test_a_tier_with_a_queue_of_its_own_is_left_alone(known: TierLoad | None, what: str) -> None:
    setting = Setting()
    setting.large.known_load = known
    assert await setting.became(given()) == [what]
    assert len(setting.large.calls) == (what == "mirrored")


async def test_a_tier_without_a_replica_is_left_alone() -> None:
    setting = Setting()
    setting.large.is_ready = False
    assert await setting.became(given()) == ["shed"]


async def test_a_queue_that_grew_meanwhile_is_seen_before_the_call() -> None:
    setting = Setting()
    setting.mirror.offer(make_request(), SMALL, given(), 0.0)
    setting.large.known_load = load(9)
    async with setting.running():
        await until(lambda: setting.observer.mirrors == ["shed"])
    assert setting.large.calls == []


async def test_a_full_queue_sheds() -> None:
    setting = Setting(queue=3)
    for number in range(5):
        setting.mirror.offer(make_request(id=f"tw-{number}"), SMALL, given(), 0.0)
    assert setting.observer.mirrors == ["shed", "shed"]


async def test_what_waits_is_bounded_in_bytes_and_the_places_come_back() -> None:
    setting = Setting(queue=1000)
    events = "".join(stream_script("x" * 1024 * 1024, " "))
    for _ in range(40):
        setting.mirror.offer(make_request(), SMALL, events, 0.0)
    assert setting.observer.mirrors.count("shed") == 40 - 31
    async with setting.running():
        await until(lambda: setting.observer.mirrors.count("unjudgeable") == 31, timeout_s=20.0)  # a text above the bound
    setting.mirror.offer(make_request(), SMALL, events, 0.0)
    assert setting.observer.mirrors.count("shed") == 40 - 31


# --- engines that fail


@pytest.mark.parametrize("script", [[EngineFailed("broken")], [RuntimeError("bug")], [], ["data: {}\n\n"], [{"choices": [None]}]])
async def test_an_engine_that_fails_costs_its_job_and_no_worker(script: list[Any]) -> None:
    setting = Setting(script, workers=1)
    async with setting.running():
        for number in range(3):
            setting.mirror.offer(make_request(id=f"tw-{number}"), SMALL, given(), 0.0)
        await until(lambda: len(setting.observer.mirrors) == 3)
    assert setting.observer.mirrors == ["failed"] * 3
    assert setting.ledger.pairs == []
    assert [call.closed for call in setting.large.calls] == [True] * 3


async def test_a_late_engine_is_given_up_and_its_generation_closed() -> None:
    setting = Setting([Pause(FOREVER)], timeout_s=0.02)
    assert await setting.became(given()) == ["failed"]
    assert setting.large.calls[0].closed


async def test_an_engine_that_hangs_holds_its_workers_and_nothing_else() -> None:
    """Offers stay instant, what waits stays bounded, and at most `workers` generations are open."""
    setting = Setting([Pause(FOREVER)], workers=2, queue=8)
    async with setting.running():
        for number in range(1000):
            setting.mirror.offer(make_request(id=f"tw-{number}"), SMALL, given(), 0.0)
            if number % 100 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(setting.large.calls) == 2)
        assert [call.closed for call in setting.large.calls] == [False, False]
        assert 0 <= setting.observer.mirrors.count("shed") - (1000 - 8 - 2) <= 2
        assert setting.mirror._queue.qsize() <= 8
    assert [call.closed for call in setting.large.calls] == [True, True]  # by leaving


# --- beside the pipeline


@asynccontextmanager
async def mirroring(world: World) -> AsyncIterator[Pipeline]:
    pipeline = world.pipeline()
    running = asyncio.create_task(world.mirror.run())
    try:
        yield pipeline
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def ask(pipeline: Pipeline, number: int, *, stream: bool) -> float:
    """Seconds until the client had all of its answer."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await soon(pipeline.answer(make_request(id=f"tw-{number}", stream=stream)))
    if stream:
        await soon(read_all(answer.events))
    return loop.time() - started


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_does_not_wait_for_a_mirror_that_hangs(stream: bool) -> None:
    world = World(score=0.1, live=Live(mirror_share=1.0))
    world.small.script = [*stream_script("a", "b")] if stream else world.small.script
    world.large.script = [Pause(FOREVER)]
    settings = MirrorSettings()
    async with mirroring(world) as pipeline:
        seconds = [await ask(pipeline, number, stream=stream) for number in range(200)]
        await until(lambda: len(world.large.calls) == settings.workers)
    assert max(seconds) < 1.0  # one that waited for a mirror would take an hour
    assert len(world.ledger.records) == 200
    assert set(world.observer.mirrors) == {"shed"}
    assert 0 <= 200 - settings.queue - len(world.observer.mirrors) <= settings.workers


async def test_the_pipeline_offers_what_the_client_got() -> None:
    world = World(score=0.1, live=Live(mirror_share=1.0))
    world.large.script = [plain_answer("large-model", text="Better.")]
    async with mirroring(world) as pipeline:
        await ask(pipeline, 1, stream=False)
        world.small.script = [*stream_script("a", "b")]
        await ask(pipeline, 2, stream=True)
        await until(lambda: len(world.ledger.pairs) == 2)
    assert {found.decision_id: found.answer for found in world.ledger.pairs} == {"tw-1": "Hi.", "tw-2": "ab"}
    assert {found.mirror_answer for found in world.ledger.pairs} == {"Better."}
