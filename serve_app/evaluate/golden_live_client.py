"""One golden prompt through a running endpoint, streamed, as a client sees it. Nothing is tried twice: a failure is a result."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from serve_app import remote
from serve_app.domain import Json, Tier, Usage
from serve_app.errors import TierwiseError
from serve_app.evaluate.golden_live_answers import Answer, Arm, Receipt
from serve_app.stream import usage_of

CHAT = "/v1/chat/completions"
REQUEST_S = 300.0  # the endpoint has limits of its own: this one ends a run whose endpoint has lost them
MODELS = {Arm.ROUTED: "auto", Arm.ALL_LARGE: Tier.LARGE.value}
NO_RECEIPT = "no receipt: is this tierwise?"
MAX_CODE = 60


def client(url: str, api_key: str, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Raises `RequestError` for what is no address, or a key that no header can hold."""
    with remote.connect(url, api_key) as checked:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=checked.base_url, headers=checked.headers, timeout=REQUEST_S, limits=limits, transport=transport)


async def look(http: httpx.AsyncClient) -> Json:
    """What `/status` says of the tiers. Raises `TierwiseError` in one line when the endpoint is not ready or refuses the key."""
    ready = await _asked(http, "/ready", httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE)
    tiers = ready.get("tiers")
    if not isinstance(tiers, dict):
        raise _foreign(http, "/ready")
    if waiting := [str(name) for name, there in tiers.items() if not there]:
        raise TierwiseError(f"{http.base_url}: not ready: waiting for {', '.join(waiting)}")
    found = (await _asked(http, "/status", httpx.codes.OK)).get("tiers")
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise _foreign(http, "/status")
    return found


async def _asked(http: httpx.AsyncClient, path: str, *fine: int) -> Json:
    try:
        answer = await http.get(path, timeout=30.0)
        found = answer.json() if answer.status_code in fine else {}
    except httpx.HTTPError as error:
        raise TierwiseError(f"{error.request.url}: {type(error).__name__}: is tierwise running?") from None
    except ValueError:
        raise _foreign(http, path) from None
    if answer.status_code not in fine:
        raise TierwiseError(f"{answer.request.url}: answered {answer.status_code}")
    if not isinstance(found, dict):
        raise _foreign(http, path)
    return found


def _foreign(http: httpx.AsyncClient, path: str) -> TierwiseError:
    return TierwiseError(f"{str(http.base_url).rstrip('/')}{path}: answered something else: is this tierwise?")


@dataclass(frozen=True, slots=True)
class Asking:
    """`clock` is monotonic and gives seconds since the begin of the run."""

    http: httpx.AsyncClient
    max_tokens: int
    clock: Callable[[], float]

    async def ask(self, name: str, prompt: str, arm: Arm) -> Answer:
        """Send one prompt. Raises nothing but a cancellation: what went wrong is the answer's `failure`."""
        heard, started = Heard(self.clock), self.clock()
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._stream(body(prompt, arm, self.max_tokens), heard)
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            heard.failure = type(error).__name__
        return heard.answer(Answer(name, arm, started, self.clock()))

    async def _stream(self, asked: Json, heard: "Heard") -> None:
        async with self.http.stream("POST", CHAT, json=asked) as answer:
            if answer.status_code != httpx.codes.OK:
                heard.failure = f"{answer.status_code} {_code(await answer.aread())}".strip()
                return
            heard.headers(answer.headers)
            async for line in answer.aiter_lines():
                heard.line(line)


def body(prompt: str, arm: Arm, max_tokens: int) -> Json:
    """Without chance, so that both arms of a pair are one experiment."""
    said = [{"role": "user", "content": prompt}]
    fixed = {"max_tokens": max_tokens, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    return {"model": MODELS[arm], "messages": said, **fixed}


@dataclass
class Heard:
    """What came of one stream so far."""

    clock: Callable[[], float]
    failure: str | None = None
    first: float | None = None
    texts: list[str] = field(default_factory=list)
    usage: Usage | None = None
    receipt: Receipt | None = None
    mode: str = "normal"
    overhead: float = 0.0

    def headers(self, given: Mapping[str, str]) -> None:
        self.mode = given.get("x-tierwise-mode", self.mode)
        with suppress(ValueError):
            self.overhead = max(0.0, float(given.get("x-tierwise-overhead-ms", 0.0)) / 1000)

    def line(self, line: str) -> None:
        if not line.startswith("data: {"):
            return
        try:
            self._chunk(json.loads(line.removeprefix("data: ")))
        except (ValueError, TypeError, AttributeError):  # whoever answers may be somebody else
            self.failure = "a chunk that is none of OpenAI's"

    def _chunk(self, chunk: Json) -> None:
        if "error" in chunk:
            self.failure = f"in the stream: {_named(chunk['error'])}"
        self._text(chunk.get("choices"))
        self.usage = usage_of(chunk) if chunk.get("usage") else self.usage
        self.receipt = receipt(chunk["tierwise"]) if "tierwise" in chunk else self.receipt

    def _text(self, choices: Any) -> None:
        """An answer without a single token has its first one where it ends."""
        for choice in choices or ():
            text = (choice.get("delta") or {}).get("content")
            if self.first is None and (text or choice.get("finish_reason")):
                self.first = self.clock()
            self.texts.extend([text] if text else [])

    def answer(self, begun: Answer) -> Answer:
        failure = self.failure or (NO_RECEIPT if self.receipt is None else None) or ("no usage" if self.usage is None else None)
        begun = replace(begun, mode=self.mode, overhead=self.overhead)
        if failure is not None or self.usage is None:
            return replace(begun, failure=failure)
        first = None if self.first is None else self.first - begun.started
        return replace(begun, first_token=first, usage=self.usage, receipt=self.receipt, text="".join(self.texts))


def receipt(told: Any) -> Receipt | None:
    """None for what is no receipt."""
    try:
        return Receipt(
            decision_id=str(told["decision_id"]),
            tier=Tier(told["tier"]),
            reason=str(told["reason"]),
            score=None if told["score"] is None else float(told["score"]),
            threshold=None if told["threshold"] is None else float(told["threshold"]),
            attempts=int(told["attempts"]),
            usage=usage_of(told),
            cost_usd=float(told["cost_usd"]),
            saved_usd=float(told["saved_usd"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _code(content: bytes) -> str:
    try:
        return _named(json.loads(content)["error"])
    except (ValueError, LookupError, TypeError):
        return ""


def _named(error: Any) -> str:
    """The error's code, never its message: that may quote the prompt."""
    return str(error.get("code") or error.get("type") or "error")[:MAX_CODE] if isinstance(error, dict) else "error"
