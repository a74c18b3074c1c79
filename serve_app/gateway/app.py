"""The HTTP surface: every route of the endpoint, each a few lines over `Gateway`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from serve_app import __version__
from serve_app.domain import Json, Kind, Request, Tier
from serve_app.errors import NotFound, NotReady
from serve_app.gateway import errors, openai
from serve_app.gateway.body import read_json
from serve_app.gateway.sse import EventResponse
from serve_app.gateway.translate import Translator, decision_headers, new_id, route_answer, signals
from serve_app.pipeline import InForce, Pipeline
from serve_app.ports import Clock, Engines, Ledger
from serve_app.resilience import BreakerState
from serve_app.settings import Settings


@dataclass(frozen=True)
class Gateway:
    """Everything that the routes need, made once per replica."""

    settings: Settings
    pipeline: Pipeline
    engines: Engines
    ledger: Ledger
    clock: Clock
    translator: Translator
    in_force: Callable[[], InForce]
    calibration: Callable[[], str]
    breakers: Callable[[], Mapping[Tier, BreakerState]]
    signals: Mapping[str, Callable[[], bool]]
    authenticate: Callable[[HttpRequest], None]


def create_app(gateway: Gateway) -> FastAPI:
    app = FastAPI(title="tierwise", version=__version__, docs_url=None, redoc_url=None, dependencies=[Depends(_schema_header)])
    errors.install(app)
    _public(app, gateway)
    guard = [Depends(_authentication(gateway))]
    _openai_routes(app, gateway, guard)
    _own_routes(app, gateway, guard)
    return app


async def _schema_header(response: Response) -> None:
    """For the routes that return plain data; all others set it themselves."""
    response.headers.update(errors.SCHEMA_HEADER)


def _public(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health")
    async def health() -> Json:
        """The gateway itself lives. Nothing is asked of any model."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """200 when both tiers can answer, otherwise 503 with `Retry-After`. Without its signals the router still routes."""
        tiers = {tier.value: engine.ready() for tier, engine in gateway.engines.items()}
        done = all(tiers.values())
        body = {"ready": done, "tiers": tiers, "signals": {name: ready() for name, ready in gateway.signals.items()}}
        retry = {} if done else {"retry-after": "5"}
        return JSONResponse(body, status_code=200 if done else 503, headers={**errors.SCHEMA_HEADER, **retry})


def _authentication(gateway: Gateway) -> Callable[[HttpRequest], Awaitable[None]]:
    async def authenticate(request: HttpRequest) -> None:  # async: FastAPI would give a plain function a thread
        gateway.authenticate(request)

    return authenticate


def _openai_routes(app: FastAPI, gateway: Gateway, guard: list[Any]) -> None:
    @app.post("/v1/chat/completions", dependencies=guard, openapi_extra=_body(openai.ChatBody))
    async def chat(request: HttpRequest) -> Response:
        return await _generate(gateway, "chat", request)

    @app.post("/v1/completions", dependencies=guard, openapi_extra=_body(openai.CompletionBody))
    async def completions(request: HttpRequest) -> Response:
        return await _generate(gateway, "completion", request)

    @app.get("/v1/models", dependencies=guard)
    async def models() -> Json:
        return {"object": "list", "data": [_model(name) for name in gateway.translator.names]}

    @app.get("/v1/models/{name:path}", dependencies=guard)
    async def model(name: str) -> Json:
        if name not in gateway.translator.names:
            raise NotFound(f"The model {name!r} does not exist.", code="model_not_found", param="model")
        return _model(name)


def _own_routes(app: FastAPI, gateway: Gateway, guard: list[Any]) -> None:
    @app.post("/route", dependencies=guard, openapi_extra=_body(openai.RouteBody))
    async def route(request: HttpRequest) -> JSONResponse:
        """A dry run: which tier would answer, and why. Nothing is generated or recorded."""
        request.state.decision_id = new_id()
        body = await read_json(request, gateway.settings.limits)
        parsed = gateway.translator.route(request.state.decision_id, body, request.headers)
        started = gateway.clock.monotonic()
        decision = await gateway.pipeline.explain(parsed)
        answer = route_answer(parsed, decision, gateway.clock.monotonic() - started)
        return JSONResponse(answer, headers={**errors.SCHEMA_HEADER, **errors.decision_header(request)})

    @app.get("/v1/decisions/{decision_id}", dependencies=guard)
    async def decision(decision_id: str) -> JSONResponse:
        found = await gateway.ledger.get(decision_id)
        if found is None:
            raise NotFound("There is no such decision.", code="decision_not_found")
        return JSONResponse(found, headers=errors.SCHEMA_HEADER)

    @app.get("/status", dependencies=guard)
    async def status() -> JSONResponse:
        return JSONResponse(_status(gateway), headers=errors.SCHEMA_HEADER)


async def _generate(gateway: Gateway, kind: Kind, http: HttpRequest) -> Response:
    http.state.decision_id = new_id()
    body = await read_json(http, gateway.settings.limits)
    request = gateway.translator.generation(http.state.decision_id, kind, body, http.headers)
    _refuse_while_loading(gateway, request)
    answer = await gateway.pipeline.answer(request)
    headers = decision_headers(request.id, answer.decision, answer.model, answer.overhead_seconds)
    if answer.events is not None:
        return EventResponse(answer.events, headers)
    answered = answer.body or {}
    if request.debug:
        answered["tierwise"]["signals"] = signals(answer.decision.score, answer.decision)
    return JSONResponse(answered, headers=headers)


def _refuse_while_loading(gateway: Gateway, request: Request) -> None:
    """A tier without a replica would keep the request waiting without end; say so instead."""
    wanted = [request.explicit_tier] if request.explicit_tier is not None else list(Tier)
    if not any(gateway.engines[tier].ready() for tier in wanted):
        raise NotReady("The model is still loading.", retry_after=5.0)


def _status(gateway: Gateway) -> Json:
    now = gateway.in_force()
    return {
        "version": __version__,
        "profile": gateway.settings.profile,
        "threshold": now.policy.threshold,
        "live": now.live.model_dump(),
        "calibration": gateway.calibration(),
        "tiers": {tier.value: _tier_status(gateway, tier) for tier in gateway.engines},
    }


def _tier_status(gateway: Gateway, tier: Tier) -> Json:
    engine = gateway.engines[tier]
    load = engine.load()
    known = {"model": engine.model, "ready": engine.ready(), "breaker": gateway.breakers()[tier].value}
    if load is None:
        return known
    return {
        **known,
        "replicas": load.replicas,
        "waiting": load.waiting,
        "running": load.running,
        "capacity": load.capacity,
        **load.counters,
    }


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tierwise"}


def _body(model: type[openai.Fields] | type[openai.SamplingFields]) -> dict[str, Any]:
    """The body's schema for the OpenAPI document: we read it ourselves, so that FastAPI does not see it."""
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{model.__name__}.{{model}}")
    schema = _inline(schema, schema.pop("$defs", {}), f"#/components/schemas/{model.__name__}.")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inline(node: Any, definitions: dict[str, Any], prefix: str) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _inline(definitions[node["$ref"].removeprefix(prefix)], definitions, prefix)
        return {key: _inline(value, definitions, prefix) for key, value in node.items()}
    return [_inline(item, definitions, prefix) for item in node] if isinstance(node, list) else node
