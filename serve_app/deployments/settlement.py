"""What generations had used when they ended early: kept where they ran, asked for where they are recorded.

A client that leaves takes the answer's last usage with it. The replica that ran the generation keeps what its engine
counted, and the ingress asks for it beside the load reports.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from serve_app.domain import Usage

KEPT = 10_000
ASKED = 1_000

Told = dict[str, tuple[int, int, int]]  # request id: prompt, completion and cached tokens; plain, because it crosses processes


class Settlements:
    """Owns, in a replica, what its last generations used, finished ones too: a client may leave while it reads the end."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._used: OrderedDict[str, Usage] = OrderedDict()

    def keep(self, request_id: str, usage: Usage) -> None:
        self._used[request_id] = usage
        self._used.move_to_end(request_id)
        if len(self._used) > self._most:
            self._used.popitem(last=False)

    def of(self, request_ids: Iterable[str]) -> Told:
        """Those that are known here and have ended."""
        known = ((name, self._used[name]) for name in request_ids if name in self._used)
        return {name: (used.prompt_tokens, used.completion_tokens, used.cached_tokens) for name, used in known}


class Inquiries:
    """Owns, in an ingress, the request ids that somebody waits for. There are no more of them than requests that ended lately."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Usage]] = {}

    def open(self) -> list[str]:
        """The oldest ids that are still waited for."""
        return list(self._waiting)[:ASKED]

    def answer(self, told: Mapping[str, tuple[int, int, int]]) -> None:
        for name, (prompt, completion, cached) in told.items():
            waiting = self._waiting.get(name)
            if waiting is not None and not waiting.done():
                waiting.set_result(Usage(prompt, completion, cached))

    async def wait(self, request_id: str, seconds: float) -> Usage | None:
        """The usage as soon as a replica tells it; None after `seconds`."""
        answer = self._waiting.setdefault(request_id, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(answer)
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(request_id, None)
