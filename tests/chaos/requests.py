"""What the suite asks, with an answer that can be checked: every prompt is unique and says which tier should read it."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from serve_app.domain import Json

MODELS = {"small": "tiny-llama-small", "large": "tiny-llama-large"}
CHAT = "/v1/chat/completions"
DEBUG = {"x-tierwise-debug": "true"}
EASY = "hello there, thanks a lot for the kind words, have a nice day"
HARD = "could a perfectly rational person regret a choice that turned out well, and why would that be so"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `expected` makes the right answer of a tier; None where only the receipt can be checked."""

    part: str
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = CHAT
    expected: Callable[[str], str] | None = None

    @property
    def stream(self) -> bool:
        return bool((self.body or {}).get("stream"))


def echo(text: str) -> Callable[[str], str]:
    """What the scripted engines answer."""
    return lambda tier: f"{tier}: {text}"


def chat(part: str, text: str, *, model: str = "auto", stream: bool = False, scripted: bool = True, **options: object) -> Ask:
    """`scripted`: the engines are those of `fake_engines`, so that the very words are known."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream, **options}
    return Ask(part, body, DEBUG, expected=echo(text) if scripted else None)


def mixed(name: str, *, scripted: bool = True, **options: object) -> Iterator[Ask]:
    """Plain and streamed, by tier and by score, for ever. `name` keeps two scenarios' prompts apart."""
    for number in itertools.count():
        mark = f"{name}-{number}"
        stream = number % 2 == 1
        kind = ("small", "large", "easy", "hard")[number // 2 % 4]
        if kind in MODELS:
            yield chat(kind, f"say {mark} again please", model=kind, stream=stream, scripted=scripted, **options)
        else:
            yield chat(kind, f"{EASY if kind == 'easy' else HARD} ({mark})", stream=stream, scripted=scripted, **options)


def only(kind: str, name: str, *, order: str = "", scripted: bool = True, **options: object) -> Iterator[Ask]:
    """Requests that name one tier, plain and streamed in turn; `order` is a scripted engine's."""
    for number in itertools.count():
        yield chat(
            kind, f"{order} say {name}-{number} again please".strip(), model=kind, stream=number % 2 == 1, scripted=scripted, **options
        )


def woven(*streams: Iterator[Ask]) -> Iterator[Ask]:
    """One of each in turn."""
    while True:
        for stream in streams:
            yield next(stream)
