"""What stands between a client and the engine costs: CPU per request, time to the first token, saturation, memory.

Every contender passes on the same canned generator. They are measured in turn, over and over, so that whatever else the machine
does falls on all of them; medians of the repeats are compared. CPU is what the contender's processes used in the block, less
what they use when nothing is asked.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serve_app.bench import load
from serve_app.bench.contenders import Contender
from serve_app.bench.load import Figures, Load

IDLE_S = 4.0
STREAM_TOKENS = 50
UNARY_TOKENS = 16
# Prompts without code or mathematics, so that each is scored; each differs, so that no score is remembered.
TOPICS = ("rivers", "bread", "clocks", "bicycles", "gardens", "maps", "violins", "bridges", "paper", "lighthouses")


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of load. `saturating`: as many at a time as make the contender the bottleneck; its requests/s count, not its CPU."""

    name: str
    load: Load


@dataclass(frozen=True, slots=True)
class Block:
    """One contender under one form, once. CPU milliseconds per request: outside the engine, and with it."""

    contender: str
    form: str
    figures: Figures
    cpu_ms: float
    cpu_with_engine_ms: float
    memory_mib: float


def forms(*, quick: bool) -> tuple[Form, ...]:
    few = 4 if quick else 1
    return (
        Form("unary, 8 at a time", Load(240 // few, UNARY_TOKENS, stream=False, concurrency=8)),
        Form("stream of 50, 8 at a time", Load(120 // few, STREAM_TOKENS, stream=True, concurrency=8)),
        Form("stream of 50, one client", Load(40 // few, STREAM_TOKENS, stream=True, concurrency=1)),
        Form("unary, 64 at a time", Load(320 // few, UNARY_TOKENS, stream=False, concurrency=64)),
    )


def measure(contenders: Sequence[Contender], *, repeats: int, quick: bool, say: Callable[[str], None]) -> list[Block]:
    """Every contender under every form, `repeats` times, in turn; a first round of a few requests is thrown away."""
    for contender in contenders:
        load.run(contender.url, contender.model, prompts(8, 0), Load(8, 4, stream=True, concurrency=4), contender.headers)
    blocks = []
    for repeat in range(repeats):
        for form in forms(quick=quick):
            for contender in contenders:
                blocks.append(_block(contender, form, repeat))
                say(f"{repeat + 1}/{repeats} {form.name}: {contender.name} {blocks[-1].cpu_ms:.1f} CPU-ms")
    return blocks


def _block(contender: Contender, form: Form, repeat: int) -> Block:
    before = contender.processes.used()
    time.sleep(IDLE_S)
    idle = contender.processes.used().since(before)
    before = contender.processes.used()
    figures = load.run(contender.url, contender.model, prompts(form.load.requests, repeat), form.load, contender.headers)
    used = contender.processes.used().since(before)
    share = figures.seconds / IDLE_S
    total, engine = used.total - idle.total * share, used.engine - idle.engine * share
    done = max(1, form.load.requests - figures.failed)
    memory = contender.processes.memory_mib(contender.own)
    return Block(contender.name, form.name, figures, (total - engine) / done * 1000, total / done * 1000, memory)


def prompts(count: int, repeat: int) -> list[str]:
    return [f"Tell me in a few words what is nice about {TOPICS[i % len(TOPICS)]}, number {repeat}.{i}." for i in range(count)]


def summary(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """The median of each figure over the repeats with the least and the most, a row for each contender and form."""
    rows: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        rows.setdefault((block.form, block.contender), []).append(block)
    return [{"form": form, "contender": contender, "repeats": len(some), **_medians(some)} for (form, contender), some in rows.items()]


def _medians(blocks: Sequence[Block]) -> dict[str, Any]:
    flat = [{**asdict(block.figures), **{k: v for k, v in asdict(block).items() if isinstance(v, float)}} for block in blocks]
    return {
        name: {
            "median": statistics.median(one[name] for one in flat),
            "low": min(one[name] for one in flat),
            "high": max(one[name] for one in flat),
        }
        for name in flat[0]
    }
