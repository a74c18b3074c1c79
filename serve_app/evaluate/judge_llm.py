"""A language model as judge, over any OpenAI-compatible endpoint.

What was asked and answered goes as one JSON object in a message of its own: no text in it can end its string, so that none stands
beside the instructions. Which answer comes first is drawn by a seed for each pair; in both orders a judge that goes by the place gives
a tie. What a judge obeys inside an answer cannot be ruled out: `data/judge_prompt.txt` tells it not to.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import httpx

from serve_app.domain import Json
from serve_app.errors import TierwiseError
from serve_app.evaluate.judge import Undecided
from serve_app.evaluate.judge_pairs import Asked, Verdict

VERDICTS = {"A": Verdict(1.0, 0.0), "B": Verdict(0.0, 1.0), "both": Verdict(1.0, 1.0), "neither": Verdict(0.0, 0.0)}
BODY: Json = {"temperature": 0, "max_tokens": 64}
STOPS = frozenset({401, 403, 404})  # the key, the address or the model is wrong: the next pair would be answered alike
PASSES = frozenset({408, 409, 425, 429})
BACKOFF_S, MAX_BACKOFF_S, MAX_RETRY_AFTER_S = 0.5, 8.0, 30.0
ASKED = ("messages", "prompt", "tools", "response_format")  # of a request, what an answer must heed
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asking:
    """How the endpoint is asked. `body` is merged into the request's, and a null takes a field out of it."""

    model: str
    seed: int = 0
    both_orders: bool = False
    retries: int = 3
    body: Json = field(default_factory=dict)


class LlmJudge:
    """Owns nothing that changes: `client` and its connections are the caller's."""

    worth = (
        "a language model's opinion: 1 and 0 for the better and the worse answer, 1 or 0 for both where both are good or fail; "
        "it leans to what is long, sounds sure and resembles its own answers"
    )

    def __init__(self, client: httpx.AsyncClient, asking: Asking, sleep: Sleep = asyncio.sleep) -> None:
        self.name = f"llm:{asking.model}"[:120] + ("+both" if asking.both_orders else "")
        self._client = client
        self._asking = asking
        self._sleep = sleep
        self._instructions = instructions()

    async def judge(self, asked: Asked, first: str, second: str) -> Verdict:
        """In a drawn order or, the two verdicts' mean, in both."""
        chance = random.Random(f"{self._asking.seed}/{asked.decision_id}")
        orders = [chance.random() < 0.5]
        orders += [not orders[0]] if self._asking.both_orders else []
        found = [await self._in_order(asked, first, second, swapped=swapped, chance=chance) for swapped in orders]
        return Verdict(sum(one.first for one in found) / len(found), sum(one.second for one in found) / len(found))

    async def _in_order(self, asked: Asked, first: str, second: str, *, swapped: bool, chance: random.Random) -> Verdict:
        shown = (second, first) if swapped else (first, second)
        said = await self._asked(messages(self._instructions, asked, *shown), chance)
        return Verdict(said.second, said.first) if swapped else said

    async def _asked(self, said: list[Json], chance: random.Random) -> Verdict:
        """Tries that fail in passing, or bring no verdict, are repeated, a bounded number of times and after a bounded wait."""
        body = {"model": self._asking.model, "messages": said, **BODY, **self._asking.body}
        body = {name: value for name, value in body.items() if value is not None}
        why = ""
        for attempt in range(self._asking.retries + 1):
            answer, why = await self._once(body)
            if answer is not None and not why:
                verdict = parse(answer)
                if verdict is not None:
                    return verdict
                why = "no verdict"
            if attempt < self._asking.retries:
                await self._sleep(_wait(answer, attempt, chance))
        raise Undecided(why)

    async def _once(self, body: Json) -> tuple[httpx.Response | None, str]:
        """The answer, and what is wrong with it, if that passes. Raises `Undecided`, or `TierwiseError` where nothing will be better."""
        try:
            answer = await self._client.post("chat/completions", json=body)
        except httpx.HTTPError as error:
            return None, type(error).__name__
        if answer.status_code in STOPS:
            raise TierwiseError(f"{answer.request.url}: answered {answer.status_code}: are the judge's key, address and model right?")
        if answer.is_success:
            return answer, ""
        if answer.status_code in PASSES or answer.status_code >= 500:
            return answer, f"status {answer.status_code}"
        raise Undecided(f"status {answer.status_code}")  # this pair is at fault: too long, perhaps


def instructions() -> str:
    return files("serve_app.evaluate.data").joinpath("judge_prompt.txt").read_text(encoding="utf-8")


def messages(said: str, asked: Asked, first: str, second: str) -> list[Json]:
    """The instructions, and apart from them the material, all of it inside strings of one JSON object on one line."""
    request = {name: asked.body[name] for name in ASKED if asked.body.get(name)}
    material = json.dumps({"request": request, "answer_a": first, "answer_b": second}, ensure_ascii=False)
    sendable = material.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair is no text
    return [{"role": "system", "content": said}, {"role": "user", "content": sendable}]


def parse(answer: httpx.Response) -> Verdict | None:
    """None for whatever is not exactly one verdict."""
    try:
        text = answer.json()["choices"][0]["message"]["content"]
        said = json.loads(text, object_pairs_hook=list)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(said, list) or len(said) != 1 or not isinstance(said[0], tuple):
        return None
    name, value = said[0]
    return VERDICTS.get(value) if name == "verdict" and isinstance(value, str) else None


def _wait(answer: httpx.Response | None, attempt: int, chance: random.Random) -> float:
    """What the endpoint asks for, within reason; else twice as long each time, with jitter."""
    asked: Any = None if answer is None else answer.headers.get("retry-after")
    if isinstance(asked, str) and asked.isdigit():
        return min(float(asked), MAX_RETRY_AFTER_S)
    return float(min(MAX_BACKOFF_S, BACKOFF_S * 2**attempt) * (0.5 + chance.random() / 2))
