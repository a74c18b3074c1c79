"""One generator that says the same behind every contender, so that what differs is the contender. Pure, and as an HTTP server.

It answers `max_tokens` words, one each `interval_s`, as an engine does that decodes at a steady pace.
"""

import argparse
import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

WORDS = ("small", "models", "answer", "easy", "questions", "and", "large", "ones", "the", "hard")
INTERVAL_S = 0.005  # 200 tokens/s of one stream
PROMPT_TOKENS = 32
DEFAULT_TOKENS = 16


def tokens_of(body: dict[str, Any]) -> int:
    """How many tokens a request asks for."""
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_TOKENS)


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}


def answer(request_id: str, model: str, tokens: int) -> dict[str, Any]:
    """A whole chat answer in OpenAI's shape."""
    text = " ".join(itertools.islice(itertools.cycle(WORDS), tokens))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": request_id, "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage(tokens)}


def events(request_id: str, model: str, tokens: int) -> Iterator[str]:
    """A stream as vLLM has it: the role, a word each, the end, the usage, `[DONE]`."""
    head = {"id": request_id, "object": "chat.completion.chunk", "created": 0, "model": model}

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **more}, separators=(',', ':'))}\n\n"

    yield event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    for number, word in enumerate(itertools.islice(itertools.cycle(WORDS), tokens), start=1):
        end = "stop" if number == tokens else None
        yield event([{"index": 0, "delta": {"content": f" {word}"}, "finish_reason": end}])
    yield event([], usage=usage(tokens))
    yield "data: [DONE]\n\n"


async def paced(items: Iterator[str], interval_s: float) -> AsyncGenerator[str]:
    """`items`, one each `interval_s`; a late one does not delay those behind it."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for item in items:
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        yield item
        due += interval_s


def app(interval_s: float = INTERVAL_S) -> Any:
    """The generator over HTTP: `/v1/chat/completions` and `/v1/models`."""
    from fastapi import FastAPI  # noqa: PLC0415 - the pure part above needs no web server
    from fastapi.responses import JSONResponse, StreamingResponse  # noqa: PLC0415

    server, numbers = FastAPI(), itertools.count()

    @server.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [{"id": "canned", "object": "model", "created": 0, "owned_by": "bench"}]}

    @server.post("/v1/chat/completions")
    async def chat(body: dict[str, Any]) -> Any:
        request_id, model, tokens = f"chatcmpl-{next(numbers)}", str(body.get("model", "canned")), tokens_of(body)
        if body.get("stream"):
            return StreamingResponse(paced(events(request_id, model, tokens), interval_s), media_type="text/event-stream")
        return JSONResponse(answer(request_id, model, tokens))

    return server


def main() -> None:
    import uvicorn  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="canned", description="The canned generator over HTTP.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--interval-ms", type=float, default=INTERVAL_S * 1000)
    options = parser.parse_args()
    uvicorn.run(app(options.interval_ms / 1000), host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
