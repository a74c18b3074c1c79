"""OpenTelemetry traces: one a request, made of its record once that is final, so that nothing is timed twice or on the way.

Off unless the environment names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`); sampling, headers
and the service's name come from OpenTelemetry's own variables too. Ids are chosen beforehand: the engine gets the span that it belongs to
while it works. Names and attributes follow the semantic conventions for generative AI.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote

from serve_app.domain import Attempt, Json, Outcome, Record, SignalState, Trace

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PARENT = re.compile(
    r"(?!ff)(?!00.{54})[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(-.*)?"
)
SERVICE = re.compile(r"(?:^|,)\s*service\.name\s*=([^,]+)")
NANOS = 1e9
LEFT = (Outcome.CANCELLED, Outcome.REJECTED, Outcome.REFUSED, Outcome.ESCALATED)  # no fault of ours: no error in a trace
OPERATIONS = {"chat": "chat", "completion": "text_completion"}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A span before it is made: its id, its parent's, its name, its start as Unix time, and OpenTelemetry's kind."""

    span_id: str
    parent: str | None
    name: str
    start: float
    kind: str = "INTERNAL"


class Tracing:
    """Owns the tracer and its exporter's bounded queue, which a thread of the SDK empties."""

    def __init__(self, exporter: Any = None, service: str = "tierwise") -> None:
        """`exporter` is for tests; None is OTLP over HTTP."""
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - half a second that only tracing pays
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._ids = _ids()
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}), id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(exporter if exporter is not None else _otlp()))
        self._tracer = self._provider.get_tracer("tierwise")

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Self | None:
        """None where no collector is named."""
        off = env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER") == "none"
        wanted = not off and any(env.get(name) for name in ENDPOINTS)
        named = SERVICE.search(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        service = env.get("OTEL_SERVICE_NAME") or (unquote(named[1].strip()) if named else "tierwise")
        return cls(service=service) if wanted else None

    def begin(self, headers: Mapping[str, str]) -> Trace:
        """The request's place in its client's trace, or in a new one. A malformed header counts as none, as the W3C asks."""
        found = PARENT.fullmatch(headers.get("traceparent", "")[:256])
        trace_id = found["trace"] if found else secrets.token_hex(16)
        parent = found["span"] if found else None
        sampled = self._sampled(trace_id, parent, asked=bool(found and int(found["flags"], 16) & 1))
        return Trace(trace_id, parent, secrets.token_hex(8), sampled=sampled)

    def recorded(self, record: Record) -> None:
        """A recorder's listener: the spans of a request that has ended."""
        if record.trace is None or not record.trace.sampled:
            return
        root = Drawn(record.trace.span_id, record.trace.parent_id, f"{OPERATIONS[record.kind]} auto", record.created, "SERVER")
        self._draw(record.trace, root, record.created + record.total_seconds, record.outcome, _of_request(record))
        self._decision(record.trace, record)
        for number, attempt in enumerate(record.attempts):
            self._attempt(record.trace, record, number, attempt)

    def close(self) -> None:
        """Send what waits. Blocks for a few seconds at most."""
        self._provider.shutdown()

    def _decision(self, trace: Trace, record: Record) -> None:
        start, score = record.created, record.decision.score
        span_id, decided = span_of(record.id, "decide"), start + record.overhead_seconds
        self._draw(trace, Drawn(span_id, trace.span_id, "decide", start), decided, Outcome.OK, _of_decision(record))
        asked, rated = start + record.decision.guard_seconds, score.embed_seconds + score.assess_seconds  # both are asked at once
        for name, seconds, state in (("embed", score.embed_seconds, score.embedding_state), ("assess", rated, score.assessment_state)):
            if seconds > 0 and state is not SignalState.SKIPPED:
                ended = Outcome.FAILED if state in {SignalState.LATE, SignalState.FAILED} else Outcome.OK
                stage = Drawn(span_of(record.id, name), span_id, name, asked)
                self._draw(trace, stage, min(decided, asked + seconds), ended, {"tierwise.state": state.value})

    def _attempt(self, trace: Trace, record: Record, number: int, attempt: Attempt) -> None:
        name = f"{OPERATIONS[record.kind]} {attempt.model}"
        drawn = Drawn(span_of(record.id, number), trace.span_id, name, record.created + attempt.started, "CLIENT")
        first = None if attempt.first_token is None else record.created + attempt.first_token
        self._draw(trace, drawn, record.created + attempt.ended, attempt.outcome, _of_attempt(attempt), first_token=first)

    def _draw(
        self, trace: Trace, drawn: "Drawn", end: float, outcome: Outcome, attributes: Mapping[str, Any], *, first_token: float | None = None
    ) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415

        self._ids.following(trace.trace_id, drawn.span_id)
        span = self._tracer.start_span(
            drawn.name,
            context=None if drawn.parent is None else _context(trace.trace_id, drawn.parent),
            kind=SpanKind[drawn.kind],
            attributes={key: value for key, value in attributes.items() if value is not None},
            start_time=_nanos(drawn.start),
        )
        if first_token is not None:
            span.add_event("first_token", timestamp=_nanos(first_token))
        if outcome is not Outcome.OK and outcome not in LEFT:
            span.set_status(Status(StatusCode.ERROR, outcome.value))
            span.set_attribute("error.type", outcome.value)
        span.end(_nanos(end))

    def _sampled(self, trace_id: str, parent: str | None, *, asked: bool) -> bool:
        from opentelemetry.sdk.trace.sampling import Decision  # noqa: PLC0415

        context = _context(trace_id, parent, sampled=asked) if parent is not None else None
        result = self._provider.sampler.should_sample(context, int(trace_id, 16), "request")
        return result.decision is not Decision.DROP


def span_of(request_id: str, what: object) -> str:
    """A span's id: known before the span is made, and the same for whoever knows the request's id."""
    return hashlib.sha256(f"{request_id}/{what}".encode()).hexdigest()[:16]


def traceparent(trace: Trace | None, request_id: str, attempt: int) -> str | None:
    """What the engine gets: the W3C header under which its own spans hang below the attempt's."""
    return None if trace is None else f"00-{trace.trace_id}-{span_of(request_id, attempt)}-{'01' if trace.sampled else '00'}"


def _of_request(record: Record) -> Json:
    return {
        "tierwise.decision_id": record.id,
        "tierwise.tier": record.decision.tier.value,
        "tierwise.reason": record.decision.reason.value,
        "tierwise.mode": record.decision.mode.value,
        "tierwise.outcome": record.outcome.value,
        "tierwise.cost_usd": record.cost_usd,
        "tierwise.saved_usd": record.saved_usd,
        "gen_ai.operation.name": OPERATIONS[record.kind],
        "gen_ai.usage.input_tokens": record.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": record.usage.completion_tokens,
    }


def _of_decision(record: Record) -> Json:
    decision = record.decision
    return {
        "tierwise.score": decision.score.value,
        "tierwise.threshold": decision.threshold,
        "tierwise.reason": decision.reason.value,
        "tierwise.calibration": decision.score.calibration or None,
    }


def _of_attempt(attempt: Attempt) -> Json:
    return {
        "gen_ai.request.model": attempt.model,
        "gen_ai.usage.input_tokens": attempt.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": attempt.usage.completion_tokens,
        "tierwise.tier": attempt.tier.value,
        "tierwise.outcome": attempt.outcome.value,
        "tierwise.cost_usd": attempt.cost_usd,
    }


def _nanos(seconds: float) -> int:
    return int(seconds * NANOS)


def _context(trace_id: str, span_id: str, *, sampled: bool = True) -> Any:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context  # noqa: PLC0415

    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=flags)))


def _otlp() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter()


def _ids() -> Any:
    """A generator of ids that gives the next span the ids that it was told."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator  # noqa: PLC0415

    class Chosen(IdGenerator):
        def following(self, trace_id: str, span_id: str) -> None:
            self._trace, self._span = int(trace_id, 16), int(span_id, 16)

        def generate_span_id(self) -> int:
            return self._span

        def generate_trace_id(self) -> int:
            return self._trace

    return Chosen()
