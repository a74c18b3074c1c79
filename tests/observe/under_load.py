"""What the ledger costs the request path: the same requests with the ledger taking rows, and taking none, in turn.

python -m tests.observe.under_load sqlite|postgresql [--rounds 8] [--seconds 20] [--rate 10] [--rows 1000] [--sides on,off,idle]

Real Ray, real Serve, real embedder; the engines are scripted. Requests come at a steady rate (open loop), every one is scored, plain
and streamed in turn. Beside them a feeder sends `--rows` records a second through the ingress's own ledger client. The sides:

on    the ledger writes all of them
off   the ledger acknowledges all of them and keeps nothing
idle  the same, and the feeder sends nothing

The sides take turns in one running graph, forwards and backwards, so that a slow drift of the machine meets all of them. The interval
of a ratio is a bootstrap over rounds and over the requests in each. Not a test: `docs/ledger.md` has its figures.
"""

import argparse
import asyncio
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import psutil

from tests.chaos.processes import cpu_seconds
from tests.chaos.requests import EASY, HARD, Ask, chat
from tests.chaos.traffic import Traffic
from tests.graph import Graph, running, wait_for
from tests.observe import postgres
from tests.ray.conftest import fake_config

SETTLE_S = 2.0
DEADLINE_S = 30.0
RESAMPLES = 2000
KINDS = ("plain", "streamed")
WATCHED = ("Ledger", "Feeder", "Ingress", "Embedder")
SIDES = {"on": (1, True), "off": (0, True), "idle": (0, False)}  # the ledger takes rows, the feeder sends some
Times = dict[str, list[npt.NDArray[np.float64]]]


@dataclass(frozen=True, slots=True)
class Block:
    """One side for a while. `cpu`: cores that each deployment kept busy; `others`: those that other work of this machine did."""

    side: str
    seconds: dict[str, list[float]]  # of the answers, plain and streamed
    failed: int
    rows_per_second: float
    dropped: int
    load: float
    cpu: dict[str, float]
    others: float


def config(url: str) -> dict[str, Any]:
    made = fake_config()
    application = made["applications"][0]
    application["import_path"] = "tests.observe.loaded_graph:build"
    application["args"]["ledger"] = {"url": url}
    for deployment in application["deployments"]:  # a replica that starts would be measured instead
        if deployment.pop("autoscaling_config", None) is not None:
            deployment["num_replicas"] = 1
    feeder = {"name": "feeder", "import_path": "tests.observe.loaded_graph:build_feeder", "route_prefix": "/feeder", "args": {}}
    made["applications"][1:] = [feeder]
    return made


def asks(name: str) -> Iterator[Ask]:
    """Every prompt is new, so that each one is embedded and rated."""
    for number in itertools.count():
        text = f"{(EASY, HARD)[number // 2 % 2]} ({name}-{number})"
        yield chat("any", text, stream=number % 2 == 1, scripted=False)


def feeder(graph: Graph, **wanted: float) -> dict[str, float]:
    answer = httpx.get(f"{graph.url}/feeder", params=wanted, timeout=30, trust_env=False)
    answer.raise_for_status()
    counts: dict[str, float] = answer.json()
    return counts


def busy(graph: Graph) -> dict[str, float]:
    """Seconds of CPU so far, by deployment, of this graph with this process, and of the whole machine."""
    replicas = graph.replicas()
    whole = psutil.cpu_times()
    ours = cpu_seconds([process.pid for process in graph.processes()]) + cpu_seconds([os.getpid()])
    named = {name: cpu_seconds(sorted(replicas.get(name, ()))) for name in WATCHED}
    return {**named, "graph": ours, "machine": sum(whole) - whole.idle - whole.iowait}


async def block(graph: Graph, side: str, number: int, given: argparse.Namespace) -> Block:
    on, fed = SIDES[side]
    await asyncio.to_thread(feeder, graph, on=on, rate=given.rows if fed else 0)
    await asyncio.sleep(SETTLE_S)
    before, used, started = await asyncio.to_thread(feeder, graph), busy(graph), time.monotonic()
    async with Traffic(graph.url, asks(f"{side}-{number}"), rate=given.rate, deadline_s=DEADLINE_S) as traffic:
        await asyncio.sleep(given.seconds)
        after, used_after, took = await asyncio.to_thread(feeder, graph), busy(graph), time.monotonic() - started
    cores = {name: round((value - used[name]) / took, 3) for name, value in used_after.items()}
    others = round(cores.pop("machine") - cores["graph"], 3)
    rows = (after["acked"] - before["acked"]) / (after["at"] - before["at"])
    good = {kind: [answer.seconds for answer in traffic.answers if answer.ok and answer.stream == (kind == "streamed")] for kind in KINDS}
    failed = sum(not answer.ok for answer in traffic.answers)
    return Block(side, good, failed, rows, int(after["dropped"] - before["dropped"]), os.getloadavg()[0], cores, others)


async def measured(graph: Graph, given: argparse.Namespace) -> list[Block]:
    """A first block warms everything up and is thrown away."""
    sides = given.sides.split(",")
    await block(graph, sides[0], -1, argparse.Namespace(**{**vars(given), "seconds": 5.0}))
    blocks = []
    for number in range(given.rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            blocks.append(await block(graph, side, number, given))
            made = blocks[-1]
            p99 = {kind: round(float(np.percentile(seconds, 99)) * 1000) for kind, seconds in made.seconds.items()}
            print(f"{number} {side}: p99 {p99} ms, {made.rows_per_second:.0f} rows/s, load {made.load:.1f}, {made.cpu}", flush=True)
    return blocks


def ratio(times: Times, other: str, share: float) -> list[float]:
    """Of the `share` quantile with the ledger on to the other side's: the value and its 95 % interval."""
    chance = np.random.default_rng(0)

    def quantile(side: str, rounds: npt.NDArray[np.int64], *, again: bool) -> float:
        parts = [times[side][number] for number in rounds]
        picked = [part[chance.integers(0, len(part), len(part))] if again else part for part in parts]
        return float(np.quantile(np.concatenate(picked), share))

    count = len(times["on"])
    every = np.arange(count)
    found = []
    for _ in range(RESAMPLES):
        rounds = chance.integers(0, count, count)
        found.append(quantile("on", rounds, again=True) / quantile(other, rounds, again=True))
    value = quantile("on", every, again=False) / quantile(other, every, again=False)
    return [round(float(number), 3) for number in (value, *np.quantile(found, [0.025, 0.975]))]


def summary(blocks: list[Block]) -> dict[str, Any]:
    sides = {side: [made for made in blocks if made.side == side] for side in dict.fromkeys(made.side for made in blocks)}
    loads = [made.load for made in blocks]
    ratios = {}
    for kind in KINDS:
        times: Times = {side: [np.array(made.seconds[kind]) for made in those] for side, those in sides.items()}
        ratios[kind] = {f"p{100 * s:.0f} on/{other}": ratio(times, other, s) for other in sides if other != "on" for s in (0.5, 0.99)}
    return {
        "sides": {side: _side(those) for side, those in sides.items()},
        "ratios": ratios,
        "load": [round(value, 1) for value in (min(loads), median(loads), max(loads))],
        "others_cores": round(median(made.others for made in blocks), 2),
    }


def _side(blocks: list[Block]) -> dict[str, Any]:
    every = {kind: np.concatenate([made.seconds[kind] for made in blocks]) * 1000 for kind in KINDS}
    return {
        "requests": sum(map(len, every.values())),
        "failed": sum(made.failed for made in blocks),
        **{f"{kind}_ms": [round(float(np.quantile(every[kind], share)), 1) for share in (0.5, 0.99)] for kind in KINDS},
        "rows_per_second": round(float(np.mean([made.rows_per_second for made in blocks]))),
        "dropped": sum(made.dropped for made in blocks),
        "cores": {name: round(median(made.cpu[name] for made in blocks), 3) for name in blocks[0].cpu},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", choices=["sqlite", "postgresql"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each side in each round")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--rows", type=float, default=1000.0, help="records a second beside them")
    parser.add_argument("--sides", default="on,off")
    parser.add_argument("--blocks", type=Path, help="where to keep every block, as JSON lines")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tierwise-load-")))
        graph = stack.enter_context(running(folder, config(_url(given.database, folder, stack)), timeout=240))
        wait_for(lambda: httpx.get(f"{graph.url}/feeder", timeout=10, trust_env=False).status_code == 200, 60, "the feeder")
        blocks = asyncio.run(measured(graph, given))
        if given.blocks is not None:
            given.blocks.write_text("".join(json.dumps(asdict(made)) + "\n" for made in blocks))
        print(json.dumps(summary(blocks), indent=1))


def _url(database: str, folder: Path, stack: ExitStack) -> str:
    if database == "sqlite":
        return f"sqlite:///{folder}/ledger.db"
    if (programs := postgres.binaries()) is None:
        raise SystemExit("PostgreSQL is not installed (tests/apt.txt)")
    socket = stack.enter_context(postgres.running(programs, ["listen_addresses="]))  # all else as it comes: every commit is on the disk
    return postgres.new_database(socket, "ledger")


if __name__ == "__main__":
    main()
