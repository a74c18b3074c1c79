"""Who asks, and how much they may: bearer keys and their quotas. One `Access` for each replica."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from serve_app.domain import ANYONE, Client, Json, Record, Request
from serve_app.errors import BudgetSpent, RateLimited, Unauthorized
from serve_app.keys import Key, KeyRing
from serve_app.ports import Clock, Observer
from serve_app.quotas import Meter, Quotas, Row, estimate
from serve_app.settings import Auth, Limits

log = logging.getLogger(__name__)
SYNC_S = 1.0
MEDIA = frozenset({"image_url", "input_audio", "audio_url", "video_url", "file"})
Exchange = Callable[[str, list[Row], list[str]], Awaitable[Json | None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks over HTTP: what the domain knows of them, the limits in force for them, and their key."""

    client: Client
    limits: Limits
    key: Key | None = None


class Access:
    """Owns the keys in force and what they have used. `ring` is None where nobody is asked for a key.

    `exchange` gives this replica's counts to the ledger and brings back the others'; it answers None while the ledger is away.
    """

    def __init__(self, limits: Limits, ring: KeyRing | None, *, clock: Clock, replica: str = "", exchange: Exchange | None = None) -> None:
        self._anyone = Caller(ANYONE, limits)
        self._ring = ring
        self._clock = clock
        self._replica = replica
        self._exchange = exchange
        self._quotas = Quotas()

    def caller(self, request: HttpRequest) -> Caller:
        """Raises `Unauthorized` unless the request carries a known bearer key, where keys are asked for."""
        if self._ring is None:
            return self._anyone
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip()
        key = self._ring.find(given) if given else None
        if key is None or scheme.lower() != "bearer":
            raise Unauthorized("Incorrect API key provided." if given else "No API key provided: send it as a bearer token.")
        return Caller(key.client(), narrowed(self._anyone.limits, key), key)

    def admit(self, caller: Caller, request: Request, observer: Observer, *, tokens: int | None = None) -> None:
        """Count the request against its key's limits; `tokens` is what it may take, where that is known.

        Raises `RateLimited` or `BudgetSpent`, which `observer` counts.
        """
        if caller.key is None:
            return
        try:
            self._quotas.admit(caller.key, request.id, expected_tokens(request) if tokens is None else tokens, self._clock.now())
        except BudgetSpent:
            observer.refused("budget")
            raise
        except RateLimited:
            observer.refused(self._limit_met(caller.key))
            raise

    def _limit_met(self, key: Key) -> str:
        """The requests are looked at first, as `Quotas.admit` does."""
        requests = self._quotas.meters(key, self._clock.now()).get("requests")
        return "requests" if requests is not None and requests.wait_s(1) > 0 else "tokens"

    def release(self, request_id: str) -> None:
        """The request ended; does nothing where its record came first."""
        self._quotas.release(request_id, self._clock.now())

    def settle(self, record: Record) -> None:
        """A request's record: what it really used."""
        self._quotas.settle(record, self._clock.now())

    def acked(self, record: Record) -> None:
        """The ledger has committed the record."""
        self._quotas.acked(record)

    def headers(self, caller: Caller) -> dict[str, str]:
        """OpenAI's rate-limit headers, for a key that has such limits."""
        if caller.key is None:
            return {}
        return rate_headers(self._quotas.meters(caller.key, self._clock.now()))

    def status(self) -> Json:
        """For `/status`: no key, no digest."""
        if self._ring is None:
            return {"mode": "open"}
        return {"mode": "keys", "keys": len(self._ring), "file_problem": self._ring.problem, "files_refused": self._ring.refused}

    async def run(self) -> None:
        """Each second: take over a changed keys file, exchange counts with the other replicas."""
        while True:
            await self.refresh()
            await asyncio.sleep(SYNC_S)

    async def refresh(self) -> None:
        if self._ring is None:
            return
        await self._ring.refresh()
        self._quotas.keep(key.id for key in self._ring.keys)
        if self._exchange is not None:
            budgeted = [key.id for key in self._ring.keys if key.monthly_budget_usd is not None]
            answer = await self._exchange(self._replica, self._quotas.report(self._clock.now()), budgeted)
            if answer is not None:
                self._quotas.merge(answer, self._clock.now())


def make_access(  # one line for the wiring
    auth: Auth, limits: Limits, environ: Mapping[str, str], *, clock: Clock, replica: str, exchange: Exchange
) -> Access:
    """Raises `SettingsError` when keys are asked for and there are none that can be used."""
    ring = KeyRing(auth, environ) if auth.mode == "keys" else None
    return Access(limits, ring, clock=clock, replica=replica, exchange=exchange)


def narrowed(limits: Limits, key: Key) -> Limits:
    """The smaller of the endpoint's limit and the key's own, each."""
    own = {name: getattr(key, name) for name in ("max_tokens", "max_messages", "max_body_bytes")}
    smaller = {name: min(most, getattr(limits, name) or most) for name, most in own.items() if most is not None}
    return limits.model_copy(update=smaller) if smaller else limits


def expected_tokens(request: Request) -> int:
    body = request.body
    prompts = body.get("prompt")
    choices = (body.get("n") or 1) * (len(prompts) if isinstance(prompts, list) else 1)
    chars = _chars(body.get("messages") or prompts) + sum(_written(body.get(name)) for name in ("tools", "response_format"))
    return estimate(chars, body.get("max_completion_tokens") or body.get("max_tokens"), choices)


def _written(value: object) -> int:
    """Characters of a schema, the names in it too."""
    return len(json.dumps(value, ensure_ascii=False)) if value else 0


def _chars(value: object) -> int:
    """Characters of every text in a prompt; pictures and other media are told by their field, never by what a text looks like."""
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, dict):
            rest += [part for name, part in item.items() if name not in MEDIA]
        elif isinstance(item, list):
            rest += item
    return total


def rate_headers(meters: Mapping[str, Meter]) -> dict[str, str]:
    headers = {}
    for unit, meter in meters.items():
        headers[f"x-ratelimit-limit-{unit}"] = str(meter.limit)
        headers[f"x-ratelimit-remaining-{unit}"] = str(meter.remaining)
        headers[f"x-ratelimit-reset-{unit}"] = duration(meter.reset_s)
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it: 1m30s, 12s, 250ms."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
