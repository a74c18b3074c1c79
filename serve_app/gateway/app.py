"""The HTTP surface: what a gateway is made of, and the routes that answer with a model. The others: `reading.py`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from serve_app import __version__
from serve_app.admission import Gate
from serve_app.domain import Json, Kind, Request, Tier
from serve_app.errors import NotReady
from serve_app.gateway import document, edge, errors, feedback, openai, page, reading
from serve_app.gateway.auth import Access, Caller
from serve_app.gateway.body import read_json
from serve_app.gateway.sse import EventResponse
from serve_app.gateway.translate import Translator, decision_headers, new_id, route_answer, signals
from serve_app.observe import logs
from serve_app.pipeline import InForce, Pipeline
from serve_app.ports import Clock, Engines, Ledger, Observer
from serve_app.resilience import BreakerState
from serve_app.settings import Settings


@dataclass(frozen=True)
class Gateway:
    """Everything that the routes need, made once per replica. `receipts` finds a decision, also one not written yet."""

    settings: Settings
    pipeline: Pipeline
    engines: Engines
    ledger: Ledger
    receipts: Callable[[str], Awaitable[Json | None]]
    clock: Clock
    translator: Translator
    in_force: Callable[[], InForce]
    calibration: Callable[[], str]
    artefact: Callable[[], Json]
    drift: Callable[[], Json]
    breakers: Callable[[], Mapping[Tier, BreakerState]]
    signals: Mapping[str, Callable[[], bool]]
    access: Access
    observer: Observer


def create_app(gateway: Gateway) -> FastAPI:
    app = FastAPI(title="tierwise", version=__version__, docs_url=None, redoc_url=None, dependencies=[Depends(_schema_header)])
    errors.install(app)
    guard = [Depends(_authentication(gateway.access))]
    reading.install_public(app, gateway)
    page.install(app)
    _generation(app, gateway, guard)
    reading.install(app, gateway, guard)
    feedback.install(app, gateway, guard)
    document.install(app, keys=gateway.settings.auth.mode == "keys")
    _surround(app, gateway)
    return app


async def _schema_header(response: Response) -> None:
    """For the routes that return plain data; all others set it themselves."""
    response.headers.update(errors.SCHEMA_HEADER)


def _surround(app: FastAPI, gateway: Gateway) -> None:
    """The last one stands outermost."""
    settings, clock = gateway.settings, gateway.clock
    most = settings.ingress.max_ongoing_requests
    gate = Gate(most, settings.ingress.max_wait_s, clock, lambda: most)
    app.add_middleware(edge.Bounded, gate=gate, observer=gateway.observer)
    if settings.auth.mode == "open":
        app.add_middleware(edge.Local, origins=settings.auth.cors_origins)
    app.add_middleware(edge.Edge, headers=_caller_headers(gateway.access))
    if settings.auth.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.auth.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", *document.REQUEST_HEADERS],
            expose_headers=document.ANSWER_HEADERS,
        )
    app.add_middleware(edge.RequestLine, clock=clock)


def _caller_headers(access: Access) -> Callable[[Scope], Mapping[str, str]]:
    def headers(scope: Scope) -> Mapping[str, str]:
        caller = scope.get("state", {}).get("caller")
        return access.headers(caller) if caller is not None else {}

    return headers


def _authentication(access: Access) -> Callable[[HttpRequest], Awaitable[None]]:
    async def authenticate(request: HttpRequest) -> None:  # async: FastAPI would give a plain function a thread
        request.state.caller = access.caller(request)
        logs.bind(key=request.state.caller.client.key)

    return authenticate


def _generation(app: FastAPI, gateway: Gateway, guard: list[Any]) -> None:
    @app.post("/v1/chat/completions", dependencies=guard, **document.generation(openai.ChatBody))
    async def chat(request: HttpRequest) -> Response:
        """OpenAI's chat completions, answered by the tier that the router chooses."""
        return await _generate(gateway, "chat", request)

    @app.post("/v1/completions", dependencies=guard, **document.generation(openai.CompletionBody))
    async def completions(request: HttpRequest) -> Response:
        """OpenAI's completions, answered by the tier that the router chooses."""
        return await _generate(gateway, "completion", request)

    @app.post("/route", dependencies=guard, **document.route())
    async def route(request: HttpRequest) -> JSONResponse:
        """A dry run: which tier would answer, and why. Nothing is generated or recorded; a key's limit of requests counts it."""
        return await _explain(gateway, request)


def _named(request: HttpRequest) -> tuple[Caller, str]:
    """Who asks, and the new decision's id, which the answer and every line of the log carry."""
    decision_id = request.state.decision_id = new_id()
    logs.bind(decision_id=decision_id)
    return request.state.caller, decision_id


async def _explain(gateway: Gateway, http: HttpRequest) -> JSONResponse:
    caller, decision_id = _named(http)
    body = await read_json(http, caller.limits)
    request = gateway.translator.route(decision_id, body, http.headers, caller)
    gateway.access.admit(caller, request, gateway.observer, tokens=0)
    started = gateway.clock.monotonic()
    try:
        decision = await gateway.pipeline.explain(request)
    finally:
        gateway.access.release(request.id)
    answer = route_answer(request, decision, gateway.clock.monotonic() - started)
    return JSONResponse(answer, headers={**errors.SCHEMA_HEADER, **errors.decision_header(http)})


async def _generate(gateway: Gateway, kind: Kind, http: HttpRequest) -> Response:
    caller, decision_id = _named(http)
    body = await read_json(http, caller.limits)
    request = gateway.translator.generation(decision_id, kind, body, http.headers, caller)
    _refuse_while_loading(gateway, request)
    gateway.access.admit(caller, request, gateway.observer)
    try:
        answer = await gateway.pipeline.answer(request)
    except BaseException:
        gateway.access.release(request.id)  # where nothing was decided, no record says what was used
        raise
    headers = decision_headers(request.id, answer.decision, answer.model, answer.overhead_seconds)
    if answer.events is not None:
        return EventResponse(answer.events, headers)
    answered = answer.body or {}
    if request.debug:
        answered["tierwise"]["signals"] = signals(answer.decision.score, answer.decision)
    return JSONResponse(answered, headers=headers)


def _refuse_while_loading(gateway: Gateway, request: Request) -> None:
    """A tier without a replica would keep the request waiting without end; say so instead. One that sleeps has its own bound."""
    # The large tier answers for a small one that is gone (see `policy.decide_early`); for the large one nobody does.
    wanted = [Tier.LARGE] if request.explicit_tier is Tier.LARGE else list(request.client.tiers)
    if not any(gateway.engines[tier].ready() or gateway.engines[tier].dormant() for tier in wanted):
        raise NotReady("The model is still loading.", retry_after=5.0)
