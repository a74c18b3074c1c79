"""The ports over Serve's handles, with handles that only remember."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from serve_app.deployments import clients
from serve_app.deployments.clients import HandleAssessor, HandleEmbedder, HandleEngine, ReplicaWatch
from serve_app.domain import Usage
from serve_app.errors import EngineFailed, EngineRejected, EngineTimeout, Overloaded, TierwiseError
from tests.fakes import FOREVER, FakeClock, Pause, soon, until


class FakeStream:
    """What a streaming handle gives: an async iterator that can be cancelled and does not cancel itself.

    A replica takes it after `taken` is set; what is in `refused` is raised then.
    """

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.cancelled = 0
        self.taken = asyncio.Event()
        self.taken.set()
        self.refused: Exception | None = None

    async def _fetch_future_result_async(self) -> None:
        await self.taken.wait()
        if self.refused is not None:
            raise self.refused

    async def __aiter__(self) -> AsyncIterator[Any]:
        for step in self.script:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, BaseException):
                raise step
            else:
                yield step

    def cancel(self) -> None:
        self.cancelled += 1


class FakeHandle:
    """Each method is a function of the call's arguments; `calls` are those of every method."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.chosen: dict[str, Any] = {}
        for name, method in methods.items():
            setattr(self, name, SimpleNamespace(remote=self._remembering(name, method)))

    def options(self, **chosen: Any) -> "FakeHandle":
        self.chosen = chosen
        return self

    def _remembering(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def remote(*args: Any) -> Any:
            self.calls.append((name, args))
            return method(*args)

        return remote


def engine_over(script: list[Any]) -> tuple[HandleEngine, FakeStream, FakeHandle]:
    stream = FakeStream(script)
    handle = FakeHandle(generate=lambda *_: stream)
    return HandleEngine("m", handle, ReplicaWatch(handle, FakeClock()), connect_s=0.05), stream, handle  # type: ignore[arg-type]


async def collect(engine: HandleEngine) -> list[Any]:
    return [item async for item in engine.generate("chat", {"a": 1}, request_id="r-1", session="s")]


async def test_items_pass_unchanged_and_the_call_is_cancelled_at_the_end() -> None:
    engine, stream, handle = engine_over(["data: 1\n\n", "data: 2\n\n"])
    assert await collect(engine) == ["data: 1\n\n", "data: 2\n\n"]
    assert handle.calls == [("generate", ("chat", {"a": 1}, "r-1"))]
    assert handle.chosen == {"stream": True, "session_id": "s"}
    assert stream.cancelled == 1


@pytest.mark.parametrize(
    ("raised", "expected", "says"),
    [
        (RuntimeError("secret"), EngineFailed, "The model failed to answer."),
        (EngineFailed("The model broke."), EngineFailed, "The model broke."),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), Overloaded, "queue is full"),
        ({"error": {"code": 400, "message": "too long", "param": "messages"}}, EngineRejected, "too long"),
        ({"error": {"code": 404, "message": "no such adapter"}}, EngineRejected, "no such adapter"),
        ({"error": {"code": 500, "message": "secret"}}, EngineFailed, "The model failed to answer."),
        ({"error": {"message": "secret"}}, EngineFailed, "The model failed to answer."),
        ({"error": {"code": "odd", "message": "secret"}}, EngineFailed, "The model failed to answer."),
    ],
)
async def test_whatever_the_transport_gives_becomes_one_of_our_errors(raised: Any, expected: type[TierwiseError], says: str) -> None:
    engine, stream, _ = engine_over([raised])
    with pytest.raises(expected, match=says) as caught:
        await collect(engine)
    assert "secret" not in caught.value.message
    assert stream.cancelled == 1


async def test_the_field_at_fault_is_kept() -> None:
    engine, _, _ = engine_over([{"error": {"code": 400, "message": "too long", "param": "messages"}}])
    with pytest.raises(EngineRejected) as caught:
        await collect(engine)
    assert caught.value.param == "messages"


async def test_a_full_queue_says_when_to_come_again() -> None:
    engine, _, _ = engine_over([BackPressureError(num_queued_requests=1, max_queued_requests=1)])
    with pytest.raises(Overloaded) as caught:
        await collect(engine)
    assert caught.value.retry_after == 1.0


async def test_leaving_a_stream_cancels_the_call() -> None:
    engine, stream, _ = engine_over(["data: 1\n\n", Pause(FOREVER)])
    generation = engine.generate("chat", {}, request_id="r-1")
    await anext(generation)
    assert stream.cancelled == 0
    await generation.aclose()
    assert stream.cancelled == 1


async def test_a_cancelled_reader_cancels_the_call() -> None:
    engine, stream, _ = engine_over([Pause(FOREVER)])
    reading = asyncio.create_task(collect(engine))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert stream.cancelled == 1


async def test_a_call_without_a_session_names_none() -> None:
    engine, _, handle = engine_over(["data: 1\n\n"])
    assert [item async for item in engine.generate("chat", {}, request_id="r-1")] == ["data: 1\n\n"]
    assert handle.chosen == {"stream": True, "session_id": ""}


# The connect phase


async def test_a_call_that_no_replica_takes_is_given_up_and_cancelled() -> None:
    engine, stream, _ = engine_over(["data: 1\n\n"])
    stream.taken.clear()
    with pytest.raises(EngineTimeout, match=r"^No replica took the request in time\.$"):
        await soon(collect(engine))
    assert stream.cancelled == 1


@pytest.mark.parametrize(("running", "waiting", "expected"), [(3, 0, Overloaded), (0, 1, Overloaded), (0, 0, EngineTimeout)])
async def test_replicas_at_work_that_take_nothing_are_busy_not_broken(running: int, waiting: int, expected: type[TierwiseError]) -> None:
    stream = FakeStream(["data: 1\n\n"])
    stream.taken.clear()
    watch = ReplicaWatch(Broadcasting([{**REPORT, "running": running, "waiting": waiting}]), FakeClock())  # type: ignore[arg-type]
    await watch.refresh()
    engine = HandleEngine("m", FakeHandle(generate=lambda *_: stream), watch, connect_s=0.05)  # type: ignore[arg-type]
    with pytest.raises(expected) as caught:
        await soon(collect(engine))
    assert (caught.value.retry_after is not None) == (expected is Overloaded)
    assert stream.cancelled == 1


async def test_a_slow_answer_of_a_replica_that_took_the_call_is_waited_for() -> None:
    engine, _, _ = engine_over([Pause(0.2), "data: 1\n\n"])
    assert await collect(engine) == ["data: 1\n\n"]


async def test_a_full_queue_is_told_at_once_also_while_connecting() -> None:
    engine, stream, _ = engine_over([])
    stream.refused = BackPressureError(num_queued_requests=1, max_queued_requests=1)
    with pytest.raises(Overloaded, match="queue is full"):
        await collect(engine)


async def test_leaving_while_connecting_cancels_the_call() -> None:
    stream = FakeStream([])
    stream.taken.clear()
    handle = FakeHandle(generate=lambda *_: stream)
    engine = HandleEngine("m", handle, ReplicaWatch(handle, FakeClock()), connect_s=FOREVER)  # type: ignore[arg-type]
    reading = asyncio.create_task(collect(engine))
    await until(lambda: handle.calls)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert stream.cancelled == 1


async def test_the_signals_are_plain_calls() -> None:
    async def answer(text: str) -> str:
        return f"of {text}"

    handle = FakeHandle(embed=answer, assess=answer)
    assert await HandleEmbedder(handle).embed("x") == "of x"  # type: ignore[arg-type, comparison-overlap]
    assert await HandleAssessor(handle).assess("x") == "of x"  # type: ignore[arg-type, comparison-overlap]


# The replicas' reports


class Broadcasting:
    """A handle whose `broadcast` gives these reports, or raises; `used` is what each replica tells of generations that ended."""

    def __init__(self, reports: Any, used: Sequence[Any] = ()) -> None:
        self.reports = reports
        self.used = list(used)
        self.asked: list[list[str]] = []

    def broadcast(self, method: str, *args: Any) -> Any:
        if method == "settled":
            self.asked.append(args[0])
            return SimpleNamespace(results=self._settled)
        assert (method, args) == ("load_report", ())
        return SimpleNamespace(results=self._reports)

    def _reports(self, *, timeout_s: float, return_exceptions: bool) -> Any:
        assert return_exceptions
        if isinstance(self.reports, Exception):
            raise self.reports
        return self.reports

    def _settled(self, *, timeout_s: float, return_exceptions: bool) -> Any:
        assert return_exceptions
        return self.used


REPORT = {"waiting": 1, "running": 2, "capacity": 16, "prompt_tokens": 10, "generation_tokens": 20}


async def test_the_load_is_the_sum_over_the_replicas_that_answered() -> None:
    clock = FakeClock()
    watch = ReplicaWatch(Broadcasting([REPORT, RuntimeError("dead"), REPORT]), clock)  # type: ignore[arg-type]
    await watch.refresh()
    load = watch.load()
    assert load is not None
    assert (load.replicas, load.waiting, load.running, load.capacity, load.as_of) == (2, 2, 4, 32, clock.now())
    assert load.counters == {"prompt_tokens": 20, "generation_tokens": 40}


async def test_what_each_replica_tells_is_known_while_it_is_fresh() -> None:
    clock = FakeClock()
    watch = ReplicaWatch(Broadcasting([{"calibration": "a"}, RuntimeError("dead"), {"calibration": "b"}, REPORT]), clock)  # type: ignore[arg-type]
    await watch.refresh()
    assert watch.each("calibration") == ["a", "b"]
    clock.advance(6)
    assert watch.each("calibration") == []


async def test_a_report_grows_stale_then_the_tier_is_gone() -> None:
    clock = FakeClock()
    watch = ReplicaWatch(Broadcasting([REPORT]), clock)  # type: ignore[arg-type]
    assert (watch.load(), watch.ready()) == (None, False)
    await watch.refresh()
    clock.advance(5.0)
    assert watch.load() is not None
    clock.advance(1.0)
    assert (watch.load(), watch.ready()) == (None, True)
    clock.advance(25.0)
    assert watch.ready() is False


@pytest.mark.parametrize("answer", [[], [RuntimeError("dead")], RuntimeError("no controller"), TimeoutError()])
async def test_no_answer_leaves_the_old_report(answer: Any) -> None:
    clock = FakeClock()
    handle = Broadcasting([REPORT])
    watch = ReplicaWatch(handle, clock)  # type: ignore[arg-type]
    await watch.refresh()
    handle.reports = answer
    clock.advance(3.0)
    await watch.refresh()
    load = watch.load()
    assert load is not None
    assert load.as_of == clock.now() - 3.0


# What cancelled generations used


async def test_what_a_cancelled_generation_used_is_told_by_whichever_replica_ran_it() -> None:
    handle = Broadcasting([REPORT], used=[{}, RuntimeError("dead"), {"r-1": (10, 20, 5)}])
    watch = ReplicaWatch(handle, FakeClock())  # type: ignore[arg-type]
    asking = asyncio.create_task(HandleEngine("m", handle, watch).settled("r-1"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await watch.refresh()
    assert await soon(asking) == Usage(10, 20, 5)
    await watch.refresh()
    assert handle.asked == [["r-1"]], "nobody waits any more"


async def test_a_generation_that_has_not_stopped_yet_is_asked_for_again() -> None:
    handle = Broadcasting([REPORT], used=[{}])
    watch = ReplicaWatch(handle, FakeClock())  # type: ignore[arg-type]
    asking = asyncio.create_task(watch.settled("r-1", FOREVER))
    await asyncio.sleep(0)
    await watch.refresh()
    assert not asking.done()
    handle.used = [{"r-1": (1, 2, 0)}]
    await watch.refresh()
    assert await soon(asking) == Usage(1, 2, 0)


async def test_what_no_replica_knows_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "SETTLE_S", 0.05)
    handle = Broadcasting([REPORT])
    watch = ReplicaWatch(handle, FakeClock())  # type: ignore[arg-type]
    assert await soon(HandleEngine("m", handle, watch).settled("r-1")) is None  # type: ignore[arg-type]
    await watch.refresh()
    assert handle.asked == []
