"""`tierwise judge`, apart from its options: which judge, which pairs, where the verdicts go."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from serve_app.domain import Json
from serve_app.embedding import SentenceEmbedder
from serve_app.errors import RequestError
from serve_app.evaluate import judge_pairs, judge_reference, recorded, sources
from serve_app.evaluate.judge import Bench, Judge, Tally, summary
from serve_app.evaluate.judge_llm import Asking, LlmJudge
from serve_app.evaluate.judge_pairs import Known, Lines, Pair, Rows

By = Literal["exact", "similarity", "agreement", "llm"]
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible one: `url` ends where `/chat/completions` begins, `key_env` names the variable that holds its key."""

    url: str = ""
    model: str = ""
    key_env: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's options. `out` and `write` are where verdicts go: one at least."""

    by: By
    source: recorded.Source
    out: Path | None = None
    write: bool = False
    reference: Path | None = None
    endpoint: Endpoint = Endpoint()
    seed: int = 0
    both_orders: bool = False
    retries: int = 3
    concurrency: int = 4
    limit: int | None = None


def run(
    wanted: Wanted,
    environ: Mapping[str, str],
    ticking: Callable[[int], Callable[[], None]],
    transport: httpx.AsyncBaseTransport | None = None,
) -> Json:
    """`ticking` is told how many pairs there are, and gives what is called for each. Raises `TierwiseError` in one line."""
    if wanted.out is None and not wanted.write:
        raise RequestError("--out FILE or --write: where shall the verdicts go?")
    url, since, until = recorded.url(wanted.source), recorded.moment(wanted.source.since), recorded.moment(wanted.source.until)
    pairs = judge_pairs.count(url, since, until)
    asking = asking_of(wanted)
    references = None if wanted.reference is None else judge_reference.read(wanted.reference)

    async def next_page(after: int) -> list[Pair]:
        return await asyncio.to_thread(judge_pairs.page, url, since, until, after)

    async def all_of_it() -> Json:
        async with AsyncExitStack() as stack:
            judge = local_judge(wanted, references)
            if judge is None:
                client = await stack.enter_async_context(client_of(wanted.endpoint, environ, transport))
                judge = LlmJudge(client, asking)
            keepers: list[Known] = [] if wanted.out is None else [Lines(wanted.out, judge.name)]
            if wanted.write:
                rows = await asyncio.to_thread(Rows, url, judge.name)
                stack.callback(rows.close)
                keepers.append(rows)
            at_once = wanted.concurrency if wanted.by == "llm" else 1  # an embedder's tokenizer is one thread's at a time
            bench = Bench(judge, keepers, time.time, at_once, ticking(pairs))
            return _told(judge, await bench.run(next_page, wanted.limit), wanted)

    return asyncio.run(all_of_it())


def _told(judge: Judge, tally: Tally, wanted: Wanted) -> Json:
    return {**summary(judge, tally), "out": None if wanted.out is None else str(wanted.out), "written": wanted.write}


def asking_of(wanted: Wanted) -> Asking:
    try:
        body = json.loads(wanted.endpoint.body or "{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise RequestError("--body: must be a JSON object")
    return Asking(wanted.endpoint.model, wanted.seed, wanted.both_orders, wanted.retries, body)


def local_judge(wanted: Wanted, references: judge_reference.References | None) -> Judge | None:
    """A judge that needs no endpoint; None where an endpoint is wanted."""
    if wanted.by == "llm":
        return None
    if wanted.by != "agreement" and references is None:
        raise RequestError(f"--by {wanted.by}: needs --reference FILE of {judge_reference.NEEDED}")
    if wanted.by == "exact" and references is not None:
        return judge_reference.Exact(references)
    encode = SentenceEmbedder(sources.settings_of(wanted.source.config).embedder).encode
    if wanted.by == "agreement" or references is None:
        return judge_reference.Agreement(encode)
    return judge_reference.Similarity(encode, references)


def client_of(endpoint: Endpoint, environ: Mapping[str, str], transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """Raises `RequestError` for an address, a model or a key that cannot be used."""
    if not endpoint.url or not endpoint.model:
        raise RequestError("--by llm: needs --endpoint URL and --model NAME")
    key = environ.get(endpoint.key_env, "") if endpoint.key_env else ""
    if endpoint.key_env and not key:
        raise RequestError(f"--key-env {endpoint.key_env}: the environment has no such variable")
    if not (key.isascii() and key.isprintable()):
        raise RequestError("the judge's key holds characters that no key has")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        parsed = httpx.URL(endpoint.url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise RequestError(f"{endpoint.url}: not an http address")
    return httpx.AsyncClient(base_url=endpoint.url, headers=headers, timeout=TIMEOUT_S, transport=transport)
