"""The whole HTTP surface over fakes, without a socket."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from serve_app.gateway import auth
from serve_app.gateway.app import Gateway, create_app
from serve_app.gateway.translate import Translator
from serve_app.settings import Settings, parse
from tests.fakes import World

BASE = "http://tierwise.test"


def make_settings(**args: Any) -> Settings:
    models = {"small": {"model": {"id": "small-model"}}, "large": {"model": {"id": "large-model"}}}
    return parse({"profile": "local", **models, **args})


def make_app(world: World, authenticate: Callable[[Request], None] = auth.open_to_all, **args: Any) -> FastAPI:
    settings = make_settings(**args)
    gateway = Gateway(
        settings=settings,
        pipeline=world.pipeline(),
        engines=world.engines,
        ledger=world.ledger,
        clock=world.clock,
        translator=Translator(settings),
        in_force=world.in_force,
        calibration=lambda: "fake-hash",
        breakers=world.failover.states,
        signals={"embedder": lambda: True, "router_llm": lambda: False},
        authenticate=authenticate,
    )
    return create_app(gateway)


def make_client(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url=BASE)


@dataclass
class Endpoint:
    """A running app, the fakes behind it and a client before it."""

    world: World
    app: FastAPI
    http: httpx.AsyncClient

    async def chat(self, text: str = "hello", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    async def complete(self, prompt: Any = "hello", **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/completions", json={"model": "auto", "prompt": prompt, **fields})

    async def raw(self, content: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        return await self.http.post(path, content=content, headers={"content-type": "application/json", **headers})


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def endpoint(world: World) -> AsyncIterator[Endpoint]:
    app = make_app(world)
    async with make_client(app) as http:
        yield Endpoint(world, app, http)
