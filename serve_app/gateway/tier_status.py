"""What `/status` and `/ready` say of a tier."""

from serve_app.domain import Json, TierLoad
from serve_app.ports import Engine


def takes_requests(engine: Engine) -> bool:
    """A tier that sleeps on purpose counts: a request wakes it. Whoever waits for `/ready` would wait for ever otherwise."""
    return engine.ready() or engine.dormant()


def short(engine: Engine) -> Json:
    """For those who may not see more."""
    return {"ready": engine.ready(), "state": _state(engine, engine.load())}


def detailed(engine: Engine, breaker: str, held: int) -> Json:
    """Queues, replicas and starts; `held` requests wait in this ingress replica for a start. Unknown figures are left out."""
    load = engine.load()
    known = {"model": engine.model, "ready": engine.ready(), "state": _state(engine, load), "breaker": breaker, "held": held}
    if load is None:
        return known
    queues = {"replicas": load.replicas, "waiting": load.waiting, "running": load.running, "capacity": load.capacity}
    return {**known, **queues, **_replicas(load), **load.counters}


def _replicas(load: TierLoad) -> Json:
    """`replicas` run, `starting` more are on their way, Serve wants `target`; times are seconds."""
    counts = {} if load.target is None else {"starting": load.starting, "target": load.target}
    times = {"cold_start_s": load.cold_start, "eta_s": load.cold_eta}
    return {**counts, **{name: round(seconds, 1) for name, seconds in times.items() if seconds is not None}}


def _state(engine: Engine, load: TierLoad | None) -> str:
    if engine.ready():
        return "up"
    if load is not None and load.target:
        return "starting"
    return "asleep" if engine.dormant() else "down"
