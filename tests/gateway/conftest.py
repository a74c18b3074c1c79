"""The whole HTTP surface over fakes, without a socket."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI

from serve_app.gateway.app import Gateway, create_app
from serve_app.gateway.auth import Access
from serve_app.gateway.translate import Translator
from serve_app.keys import KeyRing, digest
from serve_app.observe import logs
from serve_app.observe.tracing import Tracing
from serve_app.settings import Auth, Settings, parse
from tests.fakes import World

BASE = "http://localhost"


def make_settings(**args: Any) -> Settings:
    models = {"small": {"model": {"id": "small-model"}}, "large": {"model": {"id": "large-model"}}}
    return parse({"profile": "local", **models, **args})


def make_access(world: World, settings: Settings, keys: dict[str, dict[str, Any]]) -> Access:
    """`keys` are records of the keys file by the secrets themselves; without any, nobody is asked for one."""
    if not keys:
        return Access(settings.limits, None, clock=world.clock)
    with TemporaryDirectory() as folder:
        file = write_keys(Path(folder) / "keys.yaml", keys)
        return Access(settings.limits, KeyRing(Auth(mode="keys", keys_file=str(file)), {}), clock=world.clock)


def write_keys(file: Path, keys: dict[str, dict[str, Any]]) -> Path:
    """A keys file with a record for each secret; the ids are k0, k1, ... unless given."""
    rows = [{"id": f"k{number}", "sha256": digest(secret), **fields} for number, (secret, fields) in enumerate(keys.items())]
    file.write_text(yaml.safe_dump(rows))
    file.chmod(0o600)
    return file


def make_app(
    world: World,
    keys: dict[str, dict[str, Any]] | None = None,
    *,
    access: Access | None = None,
    tracing: Tracing | None = None,
    **args: Any,
) -> FastAPI:
    settings = make_settings(**args, **({"auth": {"mode": "keys"}} if keys else {}))
    access = access or make_access(world, settings, keys or {})
    pipeline = world.pipeline()
    world.recorder._listeners = (access.settle, logs.recorded, *([tracing.recorded] if tracing else []))  # as the ingress wires it
    gateway = Gateway(
        settings=settings,
        pipeline=pipeline,
        engines=world.engines,
        ledger=world.ledger,
        receipts=world.recorder.get,
        clock=world.clock,
        translator=Translator(settings, tracing.begin if tracing else None),
        in_force=world.in_force,
        calibration=lambda: "fake-hash",
        artefact=lambda: {"wanted": "profile", "in_force": "fake-hash", "problem": None},
        drift=lambda: {"decisions": 0, "score_psi": None, "novelty_psi": None, "novel_share": None},
        breakers=world.failover.states,
        signals={"embedder": lambda: True, "router_llm": lambda: False},
        access=access,
        observer=world.observer,
    )
    return create_app(gateway)


def make_client(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url=BASE)


class Held:
    """An engine's answer that waits until a test lets it go."""

    def __init__(self, world: World) -> None:
        self.gate = asyncio.Event()
        real = world.small.generate

        async def generate(*arguments: Any, **options: Any) -> Any:
            async for item in real(*arguments, **options):
                await self.gate.wait()
                yield item

        world.small.generate = generate  # type: ignore[method-assign]


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
