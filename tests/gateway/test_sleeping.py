"""What a client and an operator see of a large tier that sleeps."""

import asyncio

import pytest

from serve_app.domain import TierLoad
from serve_app.settings import WakingSettings
from tests.fakes import World, until
from tests.gateway.conftest import Endpoint, make_app, make_client

ASLEEP = TierLoad(0, 0, 0, 0, 0.0, target=0, cold_start=41.23, cold_eta=44.44)


@pytest.fixture
def asleep(endpoint: Endpoint) -> Endpoint:
    endpoint.world.large.sleeping = True
    endpoint.world.large.known_load = ASLEEP
    return endpoint


async def test_the_endpoint_is_ready_while_a_tier_sleeps(asleep: Endpoint) -> None:
    response = await asleep.http.get("/ready")
    assert (response.status_code, response.json()["tiers"]) == (200, {"small": True, "large": True})


async def test_status_tells_a_tier_that_sleeps_from_one_that_starts(asleep: Endpoint) -> None:
    tier = (await asleep.http.get("/status")).json()["tiers"]["large"]
    known = {"model": "large-model", "ready": False, "state": "asleep", "breaker": "closed", "held": 0}
    queues = {"replicas": 0, "waiting": 0, "running": 0, "capacity": 0}
    assert tier == {**known, **queues, "starting": 0, "target": 0, "cold_start_s": 41.2, "eta_s": 44.4}
    asleep.world.large.known_load = TierLoad(0, 0, 0, 0, 0.0, starting=1, target=1, cold_eta=20.0)
    tier = (await asleep.http.get("/status")).json()["tiers"]["large"]
    assert (tier["state"], tier["starting"], tier["target"], tier["eta_s"]) == ("starting", 1, 1, 20.0)
    assert "cold_start_s" not in tier


async def test_a_tier_that_is_gone_without_leave_is_down(asleep: Endpoint) -> None:
    asleep.world.large.sleeping = asleep.world.large.is_ready = False
    tier = (await asleep.http.get("/status")).json()["tiers"]["large"]
    assert (tier["state"], tier["ready"]) == ("down", False)


async def test_who_waits_is_held_and_then_answered(asleep: Endpoint) -> None:
    answer = asyncio.create_task(asleep.chat(model="large"))
    await until(lambda: asleep.world.large.wake_calls)
    assert (await asleep.http.get("/status")).json()["tiers"]["large"]["held"] == 1
    asleep.world.large.woken.set()
    response = await answer
    assert (response.status_code, response.headers["x-tierwise-tier"]) == (200, "large")


async def test_who_waits_too_long_gets_the_time_left(world: World) -> None:
    world.waking, world.large.sleeping, world.large.known_load = WakingSettings(max_wait_s=0.01), True, ASLEEP
    app = make_app(world)
    async with make_client(app) as http:
        response = await Endpoint(world, app, http).chat(model="large")
    assert (response.status_code, response.headers["retry-after"]) == (503, "45")
    error = response.json()["error"]
    assert (error["code"], error["message"]) == ("not_ready", "The model is starting, which takes about 44 s more.")
