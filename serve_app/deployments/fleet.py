"""Serve's word on the replicas of each deployment: how many run, how many start, how many it wants, and whether none is enough."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum

import ray
from ray.serve.context import _get_global_client

from serve_app.domain import Json
from serve_app.ports import Clock
from serve_app.waking import Fleet

log = logging.getLogger(__name__)
EVERY_S = 5.0
SOON_S = 1.5
ANSWER_S = 5.0
STARTING = ("STARTING", "UPDATING", "RECOVERING")
BROKEN = ("UNHEALTHY", "DEPLOY_FAILED")


def serve_details() -> Json:
    """What the dashboard shows. Blocks; raises whatever Ray raises. `serve.status()` leaves out how many replicas are wanted."""
    controller = _get_global_client()._controller  # noqa: SLF001 - the one way; see the tests on real Ray
    details: Json = ray.get(controller.get_serve_instance_details.remote(), timeout=ANSWER_S)
    return details


class FleetWatch:
    """Owns the controller's last answer, which one task of the ingress asks for, a call at a time and in a thread."""

    def __init__(self, app_name: str, clock: Clock, ask: Callable[[], Json] = serve_details) -> None:
        self._app_name = app_name
        self._clock = clock
        self._ask = ask
        self._fleets: Mapping[str, Fleet] = {}

    def of(self, deployment: str) -> Fleet | None:
        """None before the first answer; an old one tells its age."""
        return self._fleets.get(deployment)

    async def run(self, soon: Callable[[], bool]) -> None:
        """Ask for ever: every few seconds, and more often while `soon` says so."""
        while True:
            await self.refresh()
            await asyncio.sleep(SOON_S if soon() else EVERY_S)

    async def refresh(self) -> None:
        """One question; without an answer the old word stays and grows old."""
        asked = self._clock.monotonic()
        try:
            self._fleets = fleets(await asyncio.to_thread(self._ask), self._app_name, asked)
        except Exception as error:  # noqa: BLE001 - a monitor: a controller that is away in any way must not stop it
            log.debug("no word from the controller: %s", type(error).__name__)


def fleets(details: Json, app_name: str, as_of: float) -> dict[str, Fleet]:
    """The deployments of one application, out of Serve's details of all. Raises `KeyError` when it is not there."""
    return {name: _fleet(deployment, as_of) for name, deployment in details["applications"][app_name]["deployments"].items()}


def _fleet(deployment: Json, as_of: float) -> Fleet:
    states = Counter(_word(replica["state"]) for replica in deployment["replicas"])
    scaling = deployment["deployment_config"].get("autoscaling_config") or {}
    return Fleet(
        target=int(deployment["target_num_replicas"]),
        running=states["RUNNING"],
        starting=sum(states[state] for state in STARTING),
        may_sleep=scaling.get("min_replicas") == 0,
        broken=_word(deployment["status"]) in BROKEN,
        as_of=as_of,
    )


def _word(told: object) -> str:
    """The controller tells enumerations of strings, a REST client gets the strings."""
    return str(told.value if isinstance(told, Enum) else told)
