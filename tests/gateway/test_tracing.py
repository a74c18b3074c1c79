"""Traces as a collector gets them: over OTLP, from the whole HTTP surface."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve_app.domain import SignalState
from serve_app.errors import EngineFailed
from serve_app.observe.tracing import Tracing, span_of
from tests.fakes import FakeAssessor, FakeClock, FakeEmbedder, World, stream_script
from tests.gateway.conftest import make_app, make_client

CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"  # the example of the W3C's recommendation
ASK = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}


class Collector:
    """A collector on a port of its own. Keeps every span that it was sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                owner.services |= {
                    a.value.string_value for r in sent.resource_spans for a in r.resource.attributes if a.key == "service.name"
                }
                owner.spans += [s for r in sent.resource_spans for scope in r.scope_spans for s in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


async def traced(world: World, headers: dict[str, str], **fields: Any) -> tuple[httpx.Response, dict[str, Any]]:
    """One answer and its spans by name."""
    spans = InMemorySpanExporter()
    tracing = Tracing(spans)
    async with make_client(make_app(world, tracing=tracing)) as http:
        answer = await http.post("/v1/chat/completions", json={**ASK, **fields}, headers=headers)
    await world.recorder.drain(1.0)
    tracing.close()
    return answer, {span.name: span for span in spans.get_finished_spans()}


async def test_a_request_is_one_trace_below_its_clients_span(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    tracing = Tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "ours"})
    assert tracing is not None
    world = World()
    async with make_client(make_app(world, tracing=tracing)) as http:
        answer = await http.post("/v1/chat/completions", json=ASK, headers={"traceparent": CLIENT})
    tracing.close()
    decision = answer.json()["tierwise"]["decision_id"]
    assert collector.services == {"ours"}
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"chat auto", "decide", "chat small-model"}
    assert {span.trace_id.hex() for span in collector.spans} == {CLIENT[3:35]}
    root = spans["chat auto"]
    assert root.parent_span_id.hex() == CLIENT[36:52]
    assert spans["decide"].parent_span_id == spans["chat small-model"].parent_span_id == root.span_id
    facts = {fact.key: fact.value for fact in spans["chat small-model"].attributes}
    assert facts["gen_ai.usage.output_tokens"].int_value == answer.json()["usage"]["completion_tokens"]
    assert next(f.value.string_value for f in root.attributes if f.key == "tierwise.decision_id") == decision


async def test_the_engine_gets_the_attempt_it_works_for_as_its_parent() -> None:
    world = World()
    answer, spans = await traced(world, {"traceparent": CLIENT})
    decision = answer.json()["tierwise"]["decision_id"]
    attempt = spans["chat small-model"].get_span_context()
    assert world.small.calls[0].trace == f"00-{attempt.trace_id:032x}-{attempt.span_id:016x}-01"
    assert f"{attempt.span_id:016x}" == span_of(decision, 0)


async def test_stages_of_the_score_are_spans_and_a_late_one_is_an_error() -> None:
    class Slow(FakeEmbedder):
        async def embed(self, text: str) -> Any:
            world.clock.advance(0.03)
            return await super().embed(text)

    class Broken(FakeAssessor):
        async def assess(self, text: str) -> Any:
            world.clock.advance(0.01)
            raise ValueError("no rating")

    world = World()
    world.embedder, world.assessor = Slow(0.6), Broken(0.1)
    _, spans = await traced(world, {})
    assert spans["embed"].parent.span_id == spans["decide"].get_span_context().span_id
    assert spans["embed"].end_time - spans["embed"].start_time == pytest.approx(0.03e9, rel=0.01)
    assert spans["embed"].status.is_unset
    assert spans["assess"].attributes["tierwise.state"] == "failed"
    assert not spans["assess"].status.is_ok
    assert spans["assess"].attributes["error.type"] == "failed"


async def test_a_rating_is_asked_beside_the_embedding_and_ends_with_the_decision() -> None:
    class Rating(FakeAssessor):
        async def assess(self, text: str) -> Any:
            await embedded.wait()
            world.clock.advance(0.2)
            return await super().assess(text)

    class Vector(FakeEmbedder):
        async def embed(self, text: str) -> Any:
            await asyncio.sleep(0)
            world.clock.advance(0.1)
            embedded.set()
            return await super().embed(text)

    embedded, world = asyncio.Event(), World()
    world.embedder, world.assessor = Vector(0.6), Rating(0.1)
    _, spans = await traced(world, {})
    assert spans["assess"].start_time == spans["embed"].start_time
    assert spans["assess"].end_time - spans["assess"].start_time == pytest.approx(0.3e9, rel=0.01)


async def test_a_rating_that_was_left_out_is_no_span() -> None:
    class Ticking(FakeClock):
        def monotonic(self) -> float:
            self.advance(1e-6)  # as a real clock does between two looks
            return super().monotonic()

    world = World()
    world.clock = Ticking()
    world.embedder = FakeEmbedder(0.05)
    answer, spans = await traced(world, {})
    assert world.ledger.records[0].decision.score.assessment_state is SignalState.SKIPPED
    assert (answer.status_code, "embed" in spans, "assess" in spans) == (200, True, False)


@pytest.mark.parametrize("attributes", ["service.name=ours,team=a", "team=a, service.name=o%75rs"])
def test_the_service_may_be_named_among_the_resources_attributes(attributes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_RESOURCE_ATTRIBUTES": attributes}
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    tracing = Tracing.from_environment(env)
    assert tracing is not None
    tracing.close()
    assert tracing._provider.resource.attributes["service.name"] == "ours"


async def test_a_failed_attempt_and_the_one_that_answered_are_both_there() -> None:
    world = World()
    world.small.script = [EngineFailed("It broke.")]
    answer, spans = await traced(world, {})
    assert answer.status_code == 200
    assert spans["chat small-model"].attributes["error.type"] == "failed"
    assert spans["chat large-model"].status.is_unset


async def test_a_client_that_does_not_sample_gets_no_spans_and_its_engine_is_told() -> None:
    world = World()
    answer, spans = await traced(world, {"traceparent": f"{CLIENT[:-2]}00"})
    assert (answer.status_code, spans) == (200, {})
    assert (world.small.calls[0].trace or "").endswith("-00")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"{CLIENT}-what-later-versions-have",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"ff-{CLIENT[3:]}",
        CLIENT.upper(),
        f"{CLIENT}\u00e9",
        "0" * 5000,
    ],
)
async def test_a_malformed_header_starts_a_trace_of_its_own(header: str) -> None:
    answer, spans = await traced(World(), {"traceparent": header.encode("utf-8")} if header else {})  # type: ignore[dict-item]
    assert answer.status_code == 200
    root = spans["chat auto"]
    assert root.parent is None
    assert f"{root.get_span_context().trace_id:032x}" != CLIENT[3:35]


async def test_a_traced_receipt_names_its_trace() -> None:
    world = World()
    answer, _ = await traced(world, {"traceparent": CLIENT})
    record = world.ledger.records[0]
    assert record.trace is not None
    assert (record.id, record.trace.trace_id) == (answer.json()["tierwise"]["decision_id"], CLIENT[3:35])


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_tracing_is_off_unless_a_collector_is_named(env: dict[str, str]) -> None:
    assert Tracing.from_environment(env) is None
    world = World()
    async with make_client(make_app(world)) as http:
        await http.post("/v1/chat/completions", json=ASK, headers={"traceparent": CLIENT})
    assert world.small.calls[0].trace is None


async def test_a_stream_marks_its_first_token() -> None:
    world = World()
    world.small.script = list(stream_script("a", "b"))
    _, spans = await traced(world, {}, stream=True)
    assert [event.name for event in spans["chat small-model"].events] == ["first_token"]
