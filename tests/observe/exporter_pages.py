"""What Ray's nodes would answer a reader of their metrics, with the labels that matter."""

from typing import Any

from serve_app.observe.exporter_scrape import Reading, Sample, parse
from serve_app.settings import Settings
from serve_app.settings import parse as parse_settings

HOUR = 3600.0
NOON = 1_795_000_000.0 - 1_795_000_000.0 % 86_400 + 43_200  # of a day in UTC


def settings(**exporter: Any) -> Settings:
    """The g6e profile: small and router on g6e.xlarge, large on g6e.12xlarge."""
    return parse_settings({"profile": "g6e", "exporter": {"state": "", "gap_s": 10 * HOUR, **exporter}})


def page(*lines: str) -> list[Sample]:
    return parse("\n".join(lines))


def text(instance: str | None = None, *deployments: str, gpus: int = 0, cpus: float = 4, more: tuple[str, ...] = ()) -> str:
    """One node's page."""
    lines = [
        f'ray_resources{{Name="CPU",State="USED"}} {cpus}',
        'ray_resources{Name="memory",State="AVAILABLE"} 7',
        f"ray_node_cpu_count {cpus}",
    ]
    if gpus:
        lines.append(f'ray_resources{{Name="GPU",State="USED"}} {gpus}')
    if instance is not None:
        lines.append(f'ray_resources{{Name="instance:{instance}",State="AVAILABLE"}} 1')
    lines += [f'ray_serve_replica_processing_queries{{deployment="{name}",replica="r{i}"}} 0' for i, name in enumerate(deployments)]
    return "\n".join([*lines, *more]) + "\n"


def counters(*, requests: float = 0, small: float = 0, large: float = 0, worker: str = "w1") -> tuple[str, ...]:
    """An ingress's counters: requests, output tokens by tier, and dollars at 1 and 8 dollars for a million tokens."""
    on = f'WorkerId="{worker}"'
    return (
        f'ray_tierwise_requests_total{{{on},tier="small",outcome="ok"}} {requests}',
        f'ray_tierwise_tokens_total{{{on},tier="small",kind="output"}} {small}',
        f'ray_tierwise_tokens_total{{{on},tier="large",kind="output"}} {large}',
        f'ray_tierwise_spent_usd_total{{{on},tier="small"}} {small / 1e6}',
        f'ray_tierwise_spent_usd_total{{{on},tier="large"}} {large * 8 / 1e6}',
        f"ray_tierwise_all_large_usd_total{{{on}}} {(small + large) * 8 / 1e6}",
    )


def loads(*, small: float = 0, large: float = 0, replicas: float = 1, capacity: float = 128) -> tuple[str, ...]:
    return (
        f'ray_tierwise_tier_running{{tier="small"}} {small}',
        f'ray_tierwise_tier_running{{tier="large"}} {large}',
        f'ray_tierwise_tier_replicas{{tier="large"}} {replicas}',
        f'ray_tierwise_tier_capacity{{tier="large"}} {capacity * replicas}',
    )


def fleet(*, head: tuple[str, ...] = ()) -> dict[str, str]:
    """The smallest g6e fleet: $1.861 for the router, $1.861 for the small tier, $10.493 for the large one; the head has no price."""
    return {
        "http://head/metrics": text(None, "Ingress", "Ledger", cpus=8, more=head),
        "http://a/metrics": text("g6e.xlarge", "RouterLLM", gpus=1),
        "http://b/metrics": text("g6e.xlarge", "SmallTier", gpus=1),
        "http://c/metrics": text("g6e.12xlarge", "LargeTier", "Embedder", gpus=4, cpus=48),
        "http://head-dashboard/metrics": "ray_dashboard_event_loop_tasks 3\n",
    }


def reading(at: float, pages: dict[str, str | None]) -> Reading:
    return Reading(at, {url: None if body is None else parse(body) for url, body in pages.items()})
