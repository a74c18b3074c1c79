"""The routes that answer from what is known: probes, models, status, and decisions with the right to read and to delete them."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from serve_app import __version__
from serve_app.domain import Client, Json, Tier
from serve_app.errors import Forbidden, NotFound, RequestError
from serve_app.gateway import decisions, document, errors, tier_status
from serve_app.gateway.translate import DECISION_ID
from serve_app.observe import why

if TYPE_CHECKING:
    from serve_app.gateway.app import Gateway

MAX_NAME = 256  # of a session or a key, in a query
Name = Annotated[str | None, Query(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]+$")]  # no database knows a NUL


def install_public(app: FastAPI, gateway: "Gateway") -> None:
    @app.get("/health", **document.plain("The gateway lives."))
    async def health() -> Json:
        """The gateway itself lives. Nothing is asked of any model."""
        return {"status": "ok"}

    @app.get("/ready", **document.plain("Both tiers take requests.", 503, loading=True))
    async def ready() -> JSONResponse:
        """200 when both tiers can answer or sleep on purpose, else 503 with `Retry-After`. Without its signals the router routes."""
        tiers = {tier.value: tier_status.takes_requests(engine) for tier, engine in gateway.engines.items()}
        done = all(tiers.values())
        body = {"ready": done, "tiers": tiers, "signals": {name: ready() for name, ready in gateway.signals.items()}}
        retry = {} if done else {"retry-after": "5"}
        return JSONResponse(body, status_code=200 if done else 503, headers={**errors.SCHEMA_HEADER, **retry})


def install(app: FastAPI, gateway: "Gateway", guard: list[Any]) -> None:
    _models(app, gateway, guard)
    _decisions(app, gateway, guard)

    @app.get("/status", dependencies=guard, **document.plain("What is in force; in detail for an admin.", 401))
    async def status(request: HttpRequest) -> JSONResponse:
        """Queues and settings for an admin key and in open mode; whether each tier is ready for every other key."""
        detailed = _client(request).admin
        return JSONResponse(_status(gateway) if detailed else _short_status(gateway), headers=errors.SCHEMA_HEADER)


def _models(app: FastAPI, gateway: "Gateway", guard: list[Any]) -> None:
    @app.get("/v1/models", dependencies=guard, **document.plain("OpenAI's list of models.", 401))
    async def models(request: HttpRequest) -> Json:
        """What this key may put into `model`."""
        return {"object": "list", "data": [_model(name) for name in gateway.translator.names(_client(request))]}

    @app.get("/v1/models/{name:path}", dependencies=guard, **document.plain("One model.", 401, 404))
    async def model(name: str, request: HttpRequest) -> Json:
        """One entry of the list."""
        if name not in gateway.translator.names(_client(request)):
            raise NotFound(f"The model {name!r} does not exist.", code="model_not_found", param="model")
        return _model(name)


def _decisions(app: FastAPI, gateway: "Gateway", guard: list[Any]) -> None:
    @app.get("/v1/decisions", dependencies=guard, **document.listing(decisions.Query, decisions.Page))
    async def listing(request: HttpRequest) -> JSONResponse:
        """Decisions, newest first, page by page: a key's own; an admin key lists all. What was decided just now comes a little later."""
        query = decisions.parse(request.query_params, _client(request))
        return JSONResponse(decisions.page(await gateway.ledger.page(query), query), headers=errors.SCHEMA_HEADER)

    @app.get("/v1/decisions/{decision_id}", dependencies=guard, **document.plain("The receipt.", 401, 404, 503))
    async def decision(decision_id: str, request: HttpRequest) -> JSONResponse:
        """The receipt of a decision: a key's own; an admin key reads all."""
        found = await receipt_of(gateway, decision_id, _client(request))
        return JSONResponse(why.explained(found), headers=errors.SCHEMA_HEADER)

    @app.delete("/v1/decisions", dependencies=guard, **document.plain("How many decisions were changed.", 400, 401, 403, 503))
    async def forget(request: HttpRequest, session: Name = None, key: Name = None) -> JSONResponse:
        """Delete the prompts of a session (an admin: of every key), or of a key (an admin's right), and what leads back to them."""
        deleted = await gateway.ledger.forget(_whose(_client(request), key, session), session)
        return JSONResponse({"deleted": deleted}, headers=errors.SCHEMA_HEADER)


async def receipt_of(gateway: "Gateway", decision_id: str, client: Client) -> Json:
    """A receipt that `client` may read. Raises `NotFound`: another's is not told from none at all."""
    found = await gateway.receipts(decision_id) if DECISION_ID.fullmatch(decision_id) else None
    if found is None or not (client.admin or found.get("key") == client.key):
        raise NotFound("There is no such decision.", code="decision_not_found")
    return found


def _whose(client: Client, key: str | None, session: str | None) -> str | None:
    """The key whose decisions may be deleted; None, for an admin and in open mode, is that session of every key."""
    if key is None and session is None:
        raise RequestError("session: needed, or key.", code="invalid_value", param="session")
    if key is not None and key != client.key and not client.admin:
        raise Forbidden("Only an admin key may delete what belongs to another key.", param="key")
    return None if key is None and client.admin else key or client.key


def _client(request: HttpRequest) -> Client:
    client: Client = request.state.caller.client
    return client


def _short_status(gateway: "Gateway") -> Json:
    return {"version": __version__, "tiers": {tier.value: tier_status.short(engine) for tier, engine in gateway.engines.items()}}


def _status(gateway: "Gateway") -> Json:
    now = gateway.in_force()
    return {
        "version": __version__,
        "profile": gateway.settings.profile,
        "threshold": now.policy.threshold,
        "live": now.live.model_dump(),
        "calibration": gateway.calibration(),
        "artefact": gateway.artefact(),
        "drift": gateway.drift(),
        "settings": now.settings,
        "access": gateway.access.status(),
        "prices": {"small": gateway.settings.small.price.model_dump(), "large": gateway.settings.large.price.model_dump()},
        "tiers": {tier.value: _tier_status(gateway, tier) for tier in gateway.engines},
    }


def _tier_status(gateway: "Gateway", tier: Tier) -> Json:
    return tier_status.detailed(gateway.engines[tier], gateway.breakers()[tier].value, gateway.pipeline.waiting(tier))


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tierwise"}
