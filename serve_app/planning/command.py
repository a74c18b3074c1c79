"""What `tierwise plan` does, apart from its options."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve_app.domain import Json
from serve_app.errors import RequestError, SettingsError
from serve_app.planning import derive, fit, measure, report, trace
from serve_app.planning.config import Engines, Traffic, parsed, prices, read_yaml
from serve_app.planning.plan import Budget, Progress, Task, default_bounds, simulate

PLOTS = (".svg", ".png", ".pdf")
HELD_OUT = (0.65,)
BUDGET = Budget()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's options; None leaves a default."""

    traffic: str | None = None
    requests_per_month: float | None = None
    large_share: float | None = None
    engines: Path | None = None
    prices: Path | None = None
    efficiency: float = derive.EFFICIENCY
    seed: int = 0
    plot: Path | None = None


def run(wanted: Wanted, progress: Progress) -> report.Plan:
    """Raises `TierwiseError` in one line for each thing that is wrong, before anything is simulated."""
    if wanted.plot is not None and wanted.plot.suffix not in PLOTS:
        raise RequestError(f"--plot: {wanted.plot} must end in {', '.join(PLOTS)}")
    if wanted.plot is not None and not wanted.plot.parent.is_dir():
        raise RequestError(f"--plot: {wanted.plot.parent}: no such folder")
    if not 0.1 <= wanted.efficiency <= 1:
        raise RequestError(f"--efficiency: must be from 0.1 to 1, got {wanted.efficiency:g}")
    known = prices(wanted.prices)
    traffic, recorded = _traffic(wanted, known.hours_per_month)
    engines = engines_of(wanted.engines, wanted.efficiency)
    for instance in (engines.small.instance, engines.large.instance, engines.service.router, engines.service.head):
        known.of(instance)
    if not traffic.output_tokens < traffic.longest_output:
        raise RequestError(f"traffic.output_tokens: {traffic.output_tokens:g} must be below longest_output ({traffic.longest_output})")
    task = Task(traffic, engines, known, default_bounds(), budget=BUDGET, seed=wanted.seed, trace=recorded)
    simulated = simulate(task, progress)
    if not simulated.asked:
        raise RequestError(f"traffic.requests_per_month: of {traffic.requests_per_month:g} none came in the time that was simulated")
    made = report.priced(traffic, engines, known, simulated)
    if wanted.plot is not None:
        report.plot(made, wanted.plot)
    return made


def _traffic(wanted: Wanted, hours_per_month: float) -> tuple[Traffic, trace.Trace | None]:
    recorded = None
    found = Traffic()
    if wanted.traffic is not None and wanted.traffic.endswith((".yaml", ".yml")):
        found = read_yaml(Path(wanted.traffic), Traffic, "traffic")
    elif wanted.traffic is not None:
        recorded = trace.read(wanted.traffic)
        found = trace.described(recorded, found, hours_per_month)
    if recorded is not None and wanted.large_share is not None:
        raise RequestError("--large-share: a recorded trace has scores and a threshold of its own")
    asked = {"requests_per_month": wanted.requests_per_month, "large_share": wanted.large_share}
    given = {name: value for name, value in asked.items() if value is not None}
    return parsed({**found.model_dump(), **given}, Traffic, "traffic"), recorded


def engines_of(path: Path | None, efficiency: float) -> Engines:
    """The derived engines, with those of the file in their place: a tier as a whole, single fields of `service`."""
    basis = derive.engines(efficiency)
    if path is None:
        return basis
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError):
        raise SettingsError([f"{path}: not readable as YAML"]) from None
    if not isinstance(data, Mapping):
        raise SettingsError([f"{path}: must be a mapping with small, large or service"])
    given: dict[str, Any] = {**basis.model_dump(), **data}
    if isinstance(data.get("service"), Mapping):
        given["service"] = {**basis.service.model_dump(), **data["service"]}
    return parsed(given, Engines, f"{path}: engines")


@dataclass(frozen=True, slots=True)
class Measured:
    speeds: str  # YAML, for `--engines`
    compared: list[fit.Compared]

    def as_lines(self) -> list[str]:
        return fit.as_lines(self.compared)

    def as_json(self) -> Json:
        return {"loads": fit.as_json(self.compared), "engines": yaml.safe_load(self.speeds)}


def measured(url: str, api_key: str, course: measure.Course, answers: Path | None, *, seed: int, say: measure.Say) -> Measured:
    """Drive a running endpoint's tier, or read answers that were measured before, and fit the engine model to them."""
    if answers is not None and answers.exists():
        rows = measure.read(answers)
    else:
        rows = measure.drive(url, api_key, course, seed=seed, say=say)
        if answers is not None:
            measure.write(rows, answers)
    source = f"fitted to {len(rows)} answers of the {course.tier} tier of a running endpoint, one replica"
    speeds = fit.fit(rows, HELD_OUT, max_num_seqs=course.workers, instance="local", source=source)
    data = {course.tier: speeds.model_dump()}
    return Measured(yaml.safe_dump(data, sort_keys=False), fit.compare(rows, speeds, HELD_OUT))


def course_of(tier: str, seconds: float, workers: int) -> measure.Course:
    """Raises `RequestError` for what cannot be driven."""
    if tier not in ("small", "large"):
        raise RequestError(f"--tier: must be small or large, got {tier}")
    if seconds < 5:
        raise RequestError(f"--block-s: must be 5 or more, got {seconds:g}")
    return measure.Course(tier=tier, block_s=seconds, workers=workers)
