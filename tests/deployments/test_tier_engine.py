"""The shells around the engines: no start without an answer, and no probe among a client's tokens."""

import sys
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

import pytest

from serve_app.deployments import tier_engine
from serve_app.deployments.settlement import Settlements
from serve_app.deployments.tier_engine import RouterLLM, TierEngine
from serve_app.domain import Json, Kind, Usage
from serve_app.settings import TierSettings, parse
from tests.fakes import plain_answer

SETTINGS: TierSettings = parse({"profile": "local"}).small


class Server:
    """What a vLLM server is to its shell. Counts 12 and 4 tokens for each generation and plays `answers`."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.bodies: list[Json] = []
        self.rated: list[str] = []
        self.settlements = Settlements()
        self.counted = Usage()
        self.running = 0

    async def generate(self, kind: Kind, body: Json, request_id: str, trace: str | None = None) -> AsyncGenerator[Any]:
        assert (kind, trace) == ("chat", None)
        self.bodies.append(body)
        self.counted = Usage(self.counted.prompt_tokens + 12, self.counted.completion_tokens + 4)
        self.settlements.keep(request_id, Usage(12, 4))
        for answer in self.answers:
            yield answer

    async def assess(self, text: str) -> str:
        self.rated.append(text)
        return "a rating"

    def queues(self) -> dict[str, int]:
        tokens = {"prompt_tokens": self.counted.prompt_tokens, "generation_tokens": self.counted.completion_tokens}
        return {"waiting": 0, "running": self.running, "capacity": 8, **tokens}


class Tier(TierEngine):
    """Without the engine's own start, and without an end that Serve would await."""

    def __init__(self, server: Server) -> None:
        self._server, self._model = server, "m"

    def __del__(self) -> None:
        pass


class Router(RouterLLM):
    def __init__(self, server: Server) -> None:
        self._server = server

    def __del__(self) -> None:
        pass


async def test_the_first_answer_of_a_start_is_in_no_clients_counters() -> None:
    tier = Tier(Server(plain_answer("m")))
    await tier._warm(SETTINGS, began=0.0)
    [item async for item in tier.generate("chat", {"messages": []}, "tw-1-0")]
    told = await tier.load_report()
    assert (told["prompt_tokens"], told["generation_tokens"]) == (12, 4)
    assert (told["probes"], told["probe_tokens"]) == (1, 16)
    assert told["cold_start_s"] > 0


@pytest.mark.parametrize(
    "answers",
    [(), ({"error": {"code": 500, "message": "no"}},), ({"choices": []},), ("data: {}\n\n",), (plain_answer("m"), plain_answer("m"))],
)
async def test_no_answer_is_no_start(answers: tuple[Any, ...]) -> None:
    with pytest.raises(RuntimeError, match="first answer failed"):
        await Tier(Server(*answers))._warm(SETTINGS, began=0.0)


async def test_a_probe_is_no_load_for_the_autoscaler() -> None:
    server = Server(plain_answer("m"))
    tier = Tier(server)
    during: list[dict[str, Any]] = []

    class Looking(Server):
        async def generate(self, kind: Kind, body: Json, request_id: str, trace: str | None = None) -> AsyncGenerator[Any]:
            during.append(tier.queues())
            async for item in server.generate(kind, body, request_id, trace):
                yield item

        def queues(self) -> dict[str, int]:
            return {**server.queues(), "running": 3}

    looking = Looking()
    looking.settlements = server.settlements
    tier._server = looking
    await tier._warm(SETTINGS, began=0.0)
    assert [queues["running"] for queues in (*during, tier.queues())] == [2, 3]


async def test_clients_requests_are_counted_and_probes_are_not() -> None:
    tier = Tier(Server(plain_answer("m")))
    await tier._warm(SETTINGS, began=0.0)
    assert tier.record_autoscaling_stats()["num_requests_served"] == 0.0
    [item async for item in tier.generate("chat", {"messages": []}, "tw-1-0")]
    assert tier.record_autoscaling_stats()["num_requests_served"] == 1.0


async def test_the_router_is_probed_with_a_rating() -> None:
    server = Server()
    router = Router(server)
    await router._warm(SETTINGS, began=0.0)
    told = await router.load_report()
    assert (len(server.rated), told["probes"], told["probe_tokens"]) == (1, 1, 0)


@pytest.mark.parametrize(("shell", "arguments"), [(Tier, ()), (Router, (128,))])
async def test_the_import_of_the_engine_is_part_of_the_starts_time(
    shell: type[Any], arguments: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Importing(ModuleType):
        def __getattr__(self, name: str) -> Any:
            seen.append("imported")
            raise AttributeError(name)

    monkeypatch.setitem(sys.modules, "serve_app.deployments.vllm_server", Importing("vllm_server"))
    monkeypatch.setattr(tier_engine, "process_began", lambda now: seen.append("looked at the clock") or now)
    with pytest.raises(ImportError):
        await shell.__mro__[1].__init__(object.__new__(shell), SETTINGS, *arguments)
    assert seen[0] == "looked at the clock"
    assert "imported" in seen
