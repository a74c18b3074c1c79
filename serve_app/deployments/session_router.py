"""Which replica of an engine takes a request: a session's stays with its own, so that its prefix cache is used.

Ray's own consistent-hash router sends a request without a session to a replica by chance, however long its queue is. This
one leaves those to Serve's two random choices, and gives a session up to them too while its replica is full.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from ray.serve._private.common import RunningReplicaInfo
from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve._private.request_router.request_router import RequestRouter
from ray.serve.config import RequestRouterConfig

# A replica at `max_ongoing_requests` lets even a call for its load report wait for a place: these are kept for such calls.
RESERVED = 8


class Replica(RunningReplica):  # type: ignore[misc]
    @property
    def max_ongoing_requests(self) -> int:
        """What the router fills: the places of the deployment without the reserved ones."""
        return max(1, int(super().max_ongoing_requests) - RESERVED)


class SessionRouter(PowerOfTwoChoicesRequestRouter):  # type: ignore[misc]
    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The session's own replica first; when it is full, the ranks of any other request."""
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        session = pending_request.metadata.session_id if pending_request is not None else ""
        if not session or not candidate_replicas:
            return ranks  # type: ignore[no-any-return]
        names = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[names[home(session, names)]], *ranks]

    def create_replica_wrapper(self, replica_info: RunningReplicaInfo) -> RunningReplica:
        return Replica(replica_info)

    def _fulfill_next_pending_request(self, replica: RunningReplica, request_metadata: Any = None) -> None:
        """A chosen replica is for the request that it was chosen for; the first of the queue may belong elsewhere."""
        RequestRouter._fulfill_next_pending_request(self, replica, request_metadata)  # noqa: SLF001 - see the contract test


def home(session: str, replicas: Iterable[str]) -> str:
    """The replica with the highest hash together with the session: a replica that comes or goes moves only its own sessions."""
    return max(
        replicas, key=lambda replica: hashlib.blake2b(f"{session}\0{replica}".encode(errors="surrogatepass"), digest_size=8).digest()
    )


def sticky() -> RequestRouterConfig:
    """By name: Ray then imports it in each process instead of pickling it."""
    return RequestRouterConfig(request_router_class=f"{__name__}:SessionRouter")
