"""`make scaling`: the same load against our policies and against Ray's own at several targets, on a real Ray.

All times are twenty times shorter, those of deployments.yaml for ours and Ray's defaults for Ray's; nothing else is changed. Every
deployment gets the trace a few seconds after the one before it, so that not all of them start processes at once.
"""

import argparse
import asyncio
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.scaling.engine import SEQUENCES, WaitingEngine
from tests.scaling.trace import SERVICE_S, TRACES, Outcome, Seen, Served, arrivals, dominators

POLICY = "serve_app.deployments.autoscaler:QueuePolicy"
TARGETS = (2, 4, 8, 16, 32, 64)
SHORTER = 20
STAGGER_S, LOOK_S, SETTLE_S = 5.0, 0.5, 5.0
TIMES = {"out_after_s": 30 / SHORTER, "cooldown_s": 30 / SHORTER, "ahead_s": 90 / SHORTER, "stale_s": 5.0}
OURS: dict[str, dict[str, float]] = {
    "waiting 20 (large)": {"waiting": 20.0, "waiting_in": 10.0, "in_after_s": 300 / SHORTER},
    "utilisation 0.7 (small)": {"utilisation": 0.7, "utilisation_in": 0.6, "in_after_s": 600 / SHORTER},
}
RAYS = {"upscale_delay_s": 30 / SHORTER, "downscale_delay_s": 600 / SHORTER}
BOUNDS = {"min_replicas": 1, "max_replicas": 4, "metrics_interval_s": 10 / SHORTER, "look_back_period_s": 30 / SHORTER}
APP = "scaling"


def deployments() -> dict[str, dict[str, Any]]:
    """Serve's options by name."""
    ours = {
        name: {
            "autoscaling_config": {**BOUNDS, "upscale_delay_s": 0, "downscale_delay_s": 0, "policy": {"policy_function": POLICY}},
            "user_config": {"scaling": {**rule, **TIMES}},
        }
        for name, rule in OURS.items()
    }
    rays = {f"Ray, target {n}": {"autoscaling_config": {**BOUNDS, **RAYS, "target_ongoing_requests": n}} for n in TARGETS}
    return ours | rays


def start(options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every deployment in one application; returns the handles."""
    from ray import serve

    class Root:
        def __init__(self, *_: Any) -> None:
            pass

    common = {"max_ongoing_requests": 64, "ray_actor_options": {"num_cpus": 0}, "graceful_shutdown_timeout_s": 60}
    engines = [serve.deployment(WaitingEngine, name=name, **common, **given).bind() for name, given in options.items()]
    serve.run(serve.deployment(Root, ray_actor_options={"num_cpus": 0}).bind(*engines), name=APP, route_prefix=None)
    return {name: serve.get_deployment_handle(name, APP) for name in options}


async def play(handle: Any, times: list[float], outcome: Outcome, begin: float) -> None:
    """Send the trace, whatever becomes of the requests before."""

    async def one(at: float) -> None:
        await asyncio.sleep(begin + at - time.time())
        arrived = time.time()
        started = await handle.answer.remote(SERVICE_S)
        outcome.served.append(Served(arrived - begin, started - begin, time.time() - begin))

    await asyncio.gather(*(one(at) for at in times))


async def look(outcomes: dict[str, Outcome], begins: dict[str, float], length: float) -> None:
    """Note the replicas of each deployment while its trace runs."""
    from ray import serve

    while time.time() < max(begins.values()) + length:
        status = await asyncio.to_thread(serve.status)
        now = time.time()
        for name, outcome in outcomes.items():
            if 0 <= now - begins[name] <= length:
                states = {str(getattr(k, "value", k)): n for k, n in status.applications[APP].deployments[name].replica_states.items()}
                outcome.seen.append(Seen(now - begins[name], states.get("RUNNING", 0), sum(states.values())))
        await asyncio.sleep(LOOK_S)


async def run(trace: str, handles: dict[str, Any]) -> list[Outcome]:
    phases = TRACES[trace]
    length = sum(phase.seconds for phase in phases) + SERVICE_S
    times = arrivals(phases, SEQUENCES)
    outcomes = {name: Outcome(name) for name in handles}
    begins = {name: time.time() + SETTLE_S + STAGGER_S * number for number, name in enumerate(handles)}
    playing = (play(handle, times, outcomes[name], begins[name]) for name, handle in handles.items())
    await asyncio.gather(look(outcomes, begins, length), *playing)
    return list(outcomes.values())


def table(trace: str, outcomes: list[Outcome]) -> str:
    lines = [f"| {trace} | queue-seconds | replica-seconds | most replicas | changes | reversals | wait p95 (s) | dominated by |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for one in outcomes:
        most = max(seen.running for seen in one.seen)
        by = ", ".join(dominators(one, outcomes)) or "nobody"
        figures = f"{one.queue_seconds:.0f} | {one.replica_seconds:.0f} | {most} | {one.actions} | {one.reversals} | {one.p95_wait():.1f}"
        lines.append(f"| {one.name} | {figures} | {by} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", default=list(TRACES), help="which of step, bursty, flat")
    parser.add_argument("--out", type=Path, help="file for the raw figures, as JSON lines")
    parser.add_argument("--images", type=Path, help="folder for the plots of `step`")
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(proxy_location="Disabled")
    try:
        handles = start(deployments())
        for trace in options.traces:
            outcomes = asyncio.run(run(trace, handles))
            print(table(trace, outcomes), flush=True)
            if options.out is not None:
                with options.out.open("a") as file:
                    file.writelines(json.dumps({"trace": trace, **asdict(one)}) + "\n" for one in outcomes)
            if options.images is not None and trace == "step":
                from tests.scaling.plots import draw

                draw(outcomes, options.images, ours=list(OURS))
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
