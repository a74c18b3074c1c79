"""The engine model fitted to measured answers: the simulator is fed the recorded arrivals, and its speeds are moved until it gives the
recorded times. Errors are those of loads that were held out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simpy
from scipy import optimize

from serve_app.domain import Json
from serve_app.errors import TierwiseError
from serve_app.planning.lengths import Floats
from serve_app.planning.measure import Timed
from serve_app.planning.pool import later
from serve_app.planning.replica import Job, Replica
from serve_app.planning.speeds import EngineSpeeds

FITTED = ("base_s", "per_sequence_s", "per_prompt_token_s", "request_s", "request_per_sequence_s")
START = (0.01, 0.001, 0.0002, 0.03, 0.002)
FIGURES = ("throughput", "ttft_p50", "ttft_p99", "total_p50", "total_p99")
FEWEST = 20
RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Compared:
    """One load: what was measured and what the simulator says, by figure; tokens a second and seconds."""

    load: float
    held_out: bool
    answers: int
    measured: dict[str, float]
    simulated: dict[str, float]

    def error(self, figure: str) -> float:
        """Of the simulator, as a share of what was measured."""
        return self.simulated[figure] / self.measured[figure] - 1


def fit(rows: Sequence[Timed], held_out: Sequence[float], *, max_num_seqs: int, instance: str, source: str) -> EngineSpeeds:
    """Speeds that give the loads that are not held out. Raises `TierwiseError` for too few answers."""
    blocks = [block for block in _blocks(rows) if block[0].load not in held_out]
    if sum(len(block) for block in blocks) < FEWEST:
        raise TierwiseError(f"fewer than {FEWEST} answers at the loads to fit on: measure for longer")
    basis = EngineSpeeds(instance=instance, source=source, measured=True, base_s=START[0], max_num_seqs=max_num_seqs, kv_tokens=10_000_000)

    def loss(logs: Floats) -> float:
        return sum(_distance(block, _with(basis, np.exp(logs))) for block in blocks)

    logs: Floats = np.log(START)
    for _ in range(RESTARTS):  # a simplex that has collapsed is spread out again
        logs = optimize.minimize(loss, logs, method="Nelder-Mead", options={"maxiter": 400, "xatol": 0.01, "fatol": 1e-4}).x
    return _with(basis, np.exp(logs))


def _with(basis: EngineSpeeds, values: Floats) -> EngineSpeeds:
    return basis.model_copy(update={name: float(value) for name, value in zip(FITTED, values, strict=True)})


def compare(rows: Sequence[Timed], speeds: EngineSpeeds, held_out: Sequence[float]) -> list[Compared]:
    """The measured figures of each load beside those of the simulator, which sees arrivals and lengths only."""
    found = []
    for load in sorted({row.load for row in rows}):
        blocks = [block for block in _blocks(rows) if block[0].load == load]
        pairs = [(block, replay(block, speeds)) for block in blocks]
        measured = _figures([(row.at, row.ttft_s, row.total_s, row.output_tokens) for block, _ in pairs for row in block], len(pairs))
        simulated = _figures(
            [(row.at, ttft, total, row.output_tokens) for block, times in pairs for row, (ttft, total) in zip(block, times, strict=True)],
            len(pairs),
        )
        found.append(Compared(load, load in held_out, sum(len(block) for block in blocks), measured, simulated))
    return found


def replay(block: Sequence[Timed], speeds: EngineSpeeds) -> list[tuple[float, float]]:
    """Time to the first token and to the last of each recorded request, in seconds, through one simulated replica."""
    env = simpy.Environment()
    jobs = [Job(index, row.at, row.prompt_tokens, row.output_tokens) for index, row in enumerate(block)]
    replica = Replica(env, speeds, lambda _: None)

    def submit(job: Job) -> None:
        later(env, speeds.outside_s(replica.running), lambda: replica.submit(job))

    def arrive(job: Job) -> None:
        later(env, job.came, lambda: submit(job))

    for job in jobs:
        arrive(job)
    env.run()
    return [((job.first or 0.0) - job.came, (job.done or 0.0) - job.came) for job in jobs]


def _blocks(rows: Sequence[Timed]) -> list[list[Timed]]:
    numbers = sorted({row.block for row in rows})
    return [sorted((row for row in rows if row.block == number), key=lambda row: row.at) for number in numbers]


def _distance(block: Sequence[Timed], speeds: EngineSpeeds) -> float:
    """Mean log error of the two times of each request, so that a stall that nobody could foresee does not bend the rest, and squared
    that of their percentiles."""
    simulated = np.maximum(np.array(replay(block, speeds)), 1e-6)
    measured = np.maximum(np.array([(row.ttft_s, row.total_s) for row in block]), 1e-6)
    each = float(np.abs(np.log(simulated / measured)).mean())
    levels = np.log(np.quantile(simulated, (0.5, 0.9, 0.99), axis=0) / np.quantile(measured, (0.5, 0.9, 0.99), axis=0))
    return each + float((levels**2).mean())


def _figures(times: Sequence[tuple[float, float, float, int]], blocks: int) -> dict[str, float]:
    """Throughput is output tokens over the time from a block's start to its last answer, on average over blocks."""
    at, ttft, total, tokens = (np.array(column, dtype=np.float64) for column in zip(*times, strict=True))
    return {
        "throughput": float(tokens.sum() / blocks / float((at + total).max())),
        "ttft_p50": float(np.quantile(ttft, 0.5)),
        "ttft_p99": float(np.quantile(ttft, 0.99)),
        "total_p50": float(np.quantile(total, 0.5)),
        "total_p99": float(np.quantile(total, 0.99)),
    }


def as_lines(found: Sequence[Compared]) -> list[str]:
    lines = [f"{'load':>5} {'':9} {'answers':>7}  " + "  ".join(f"{name:>22}" for name in FIGURES)]
    for one in found:
        cells = (f"{one.measured[name]:8.3f} {one.simulated[name]:7.3f} {one.error(name):+5.0%}" for name in FIGURES)
        lines.append(
            f"{one.load:5.0%} {'held out' if one.held_out else 'fitted':9} {one.answers:7d}  " + "  ".join(f"{cell:>22}" for cell in cells)
        )
    return [*lines, "each: measured, simulated, error of the simulator; tokens a second and seconds"]


def as_json(found: Sequence[Compared]) -> list[Json]:
    return [
        {
            "load": one.load,
            "held_out": one.held_out,
            "answers": one.answers,
            "measured": one.measured,
            "simulated": one.simulated,
            "error": {name: one.error(name) for name in FIGURES},
        }
        for one in found
    ]
