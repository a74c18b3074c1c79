"""Send hostile requests and hold every answer against what may be said to a stranger."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from tests.chaos.hostile import Hostile
from tests.chaos.judge import LEAKS
from tests.graph import REPO

DEADLINE_S = 60.0
INTERNAL = (*LEAKS, "ValidationError", "TypeError", "KeyError", "AttributeError", "pydantic", f"{REPO}/", "/home/", "0x7f")


@dataclass
class Siege:
    """What became of all of them; `bad` holds the first offences, a kind and an excerpt each."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    offences: int = 0

    def judge(self, request: Hostile, status: int, text: str) -> None:
        self.statuses[str(status)] += 1
        self.kinds[request.why] += 1
        if offence := _offence(request, status, text):
            self.offend(request, f"{status} {offence}: {text[:200]!r}")

    def add(self, other: "Siege") -> None:
        self.statuses += other.statuses
        self.kinds += other.kinds
        self.bad += other.bad
        self.offences += other.offences

    def offend(self, request: Hostile, what: str) -> None:
        self.offences += 1
        if len(self.bad) < 20:
            self.bad.append(f"{request.why}: {request.method} {request.path[:60]} {request.headers} {request.body[:200]!r} -> {what}")


def _offence(request: Hostile, status: int, text: str) -> str | None:
    sent = request.body.decode("utf-8", "replace") + request.path
    if leak := next((word for word in INTERNAL if word in text and word not in sent), None):
        return f"internal text {leak!r}"
    if status >= 500:
        return "a 5xx that nobody meant"
    if status >= 400 and request.method != "HEAD" and not _openai_shape(text) and not request.path.startswith("/-/"):
        return "not OpenAI's shape"
    return None


def _openai_shape(text: str) -> bool:
    try:
        return {"message", "type"} <= set(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return False


async def besiege(url: str, requests: Iterable[Hostile], *, at_once: int = 16) -> Siege:
    siege = Siege()
    waiting = iter(requests)

    async def worker(client: httpx.AsyncClient) -> None:
        for request in waiting:
            await _send(client, request, siege)

    async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(None), trust_env=False) as client:
        await asyncio.gather(*(worker(client) for _ in range(at_once)))
    return siege


async def _send(client: httpx.AsyncClient, request: Hostile, siege: Siege) -> None:
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in request.headers]
    try:
        async with asyncio.timeout(DEADLINE_S):
            url = client.base_url.copy_with(raw_path=request.path.encode("utf-8", "replace"))
            answer = await client.request(request.method, url, content=request.body, headers=headers)
    except TimeoutError:
        siege.statuses["hung"] += 1
        siege.offend(request, "no answer")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        siege.statuses[type(error).__name__] += 1
        if isinstance(error, httpx.RemoteProtocolError):
            siege.offend(request, "the connection was cut")
    else:
        siege.judge(request, answer.status_code, answer.text)


RAW = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{",  # the rest never comes
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"a" * 200_000 + b"\r\n\r\n",
    b"GET /status HTTP/1.1\r\nhost: localhost\r\nx-tierwise-tier: small\r\n x-folded: yes\r\n\r\n",
    b"GET /status HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
    b"GET /status\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


async def raw(url: str, number: int, *, deadline_s: float = 20.0) -> Siege:
    """Bytes that no HTTP client would send, and bodies that come slowly or never."""
    siege = Siege()
    address = urlsplit(url)

    async def one(data: bytes) -> None:
        request = Hostile("raw", "RAW", "", data, ())
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(deadline_s):
                answer = (await reader.read(65536)).decode("latin-1")
            siege.statuses[answer[9:12] or "closed"] += 1
            if any(word in answer for word in INTERNAL) or answer[9:10] == "5":
                siege.offend(request, answer[:300])
        except TimeoutError:
            siege.statuses["left open"] += 1
        except ConnectionError:
            siege.statuses["closed"] += 1
        finally:
            writer.close()

    await asyncio.gather(*(one(RAW[i % len(RAW)]) for i in range(number)))
    return siege
