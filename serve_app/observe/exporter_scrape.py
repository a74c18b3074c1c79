"""Reading the metrics of Ray's nodes: which addresses, what of a page, inside bounds."""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serve_app.settings import ExporterSettings

MAX_BYTES = 64 * 1024 * 1024  # a busy node's page has about two
MAX_TARGETS = 512
AT_ONCE = 8
GAUGES = (
    "ray_tierwise_tier_running",
    "ray_tierwise_tier_replicas",
    "ray_tierwise_tier_capacity",
    "ray_resources",
    "ray_node_cpu_count",
    "ray_serve_replica_processing_queries",
)
COUNTERS = (
    "ray_tierwise_requests_total",
    "ray_tierwise_tokens_total",
    "ray_tierwise_spent_usd_total",
    "ray_tierwise_all_large_usd_total",
    "ray_tierwise_mirror_tokens_total",
    "ray_tierwise_mirror_spent_usd_total",
    "ray_vllm_prompt_tokens_total",
    "ray_vllm_generation_tokens_total",
)
WANTED = frozenset({*GAUGES, *COUNTERS})


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What the listed addresses said; None for one that did not answer in time."""

    at: float
    pages: Mapping[str, Sequence[Sample] | None]


def targets(settings: ExporterSettings) -> list[str]:
    """URLs to read. Raises `OSError` or `ValueError` when Ray's file is not there or not readable: no Ray, or a torn write."""
    if settings.targets:
        return settings.targets[:MAX_TARGETS]
    groups = json.loads(Path(settings.discovery).read_text(encoding="utf-8"))
    if not isinstance(groups, list):
        raise ValueError("not a list of targets")
    addresses = [str(address) for group in groups for address in group.get("targets", ())]
    return [f"http://{address}/metrics" for address in addresses[:MAX_TARGETS]]


def parse(text: str) -> list[Sample]:
    """The samples that the exporter needs. Raises `ValueError` for what is no exposition format."""
    lines = (line for line in text.splitlines() if line.split("{", 1)[0].split(" ", 1)[0] in WANTED)
    return [
        Sample(sample.name, tuple(sorted(sample.labels.items())), float(sample.value))
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
    ]


def read(urls: Sequence[str], timeout_s: float, now: float) -> Reading:
    """Ask every address, a few at a time."""
    with httpx.Client(timeout=timeout_s, trust_env=False) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        pages = pool.map(lambda url: _page(client, url, timeout_s), urls)
        return Reading(now, dict(zip(urls, pages, strict=True)))


def _page(client: httpx.Client, url: str, timeout_s: float) -> list[Sample] | None:
    """None when there is no whole page within the time and the bytes."""
    end, parts, size = time.monotonic() + timeout_s, [], 0
    try:
        with client.stream("GET", url) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES or time.monotonic() > end:  # httpx bounds each wait, not their sum
                    return None
        return parse(b"".join(parts).decode("utf-8", "replace"))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
