"""The bill, by hand."""

import pytest

from serve_app.domain import Tier
from serve_app.errors import SettingsError
from serve_app.planning.config import Service, prices
from serve_app.planning.cost import Ground, bill, cores
from serve_app.planning.plan import Result
from tests.planning.common import engines

MONTH_H = 730


def result(**changes: object) -> Result:
    both = {"small": 2.0, "large": 1.5}
    given: dict[str, object] = {
        "way": "threshold",
        "large_share": 0.15,
        "answered": 1000,
        "refused": 0,
        "unfinished": 0,
        "escalated": 0,
        **dict.fromkeys(("ttft_p50", "ttft_p99", "total_p50", "total_p99"), 1.0),
        "mean": both,
        "peak": both,
        "use": {"small": 0.25, "large": 0.5},
        "busy": both,
        "fill": both,
        "starting": both,
        "chunks": 400.0,
        "scalings": {},
        **changes,
    }
    return Result(**given)  # type: ignore[arg-type]


def ground(rate: float = 4.0, cells: int = 1, **service: object) -> Ground:
    given = engines(service=Service.model_validate({"route_s": 0.0, "cpus_used": {"g6e.xlarge": 2.0, "g6e.12xlarge": 8.0}, **service}))
    return Ground(given, prices(), rate, cells)


def test_every_item_is_hours_times_price_and_idle_is_what_was_not_used() -> None:
    items = {item.name: item for item in bill(result(), ground()).items}
    assert items["small tier"].usd == pytest.approx(2 * 1.861 * MONTH_H)
    assert items["small tier"].idle_usd == pytest.approx(0.75 * 2 * 1.861 * MONTH_H)
    assert items["large tier"].usd == pytest.approx(1.5 * 10.493 * MONTH_H)
    assert items["large tier"].idle_usd == pytest.approx(0.5 * 1.5 * 10.493 * MONTH_H)
    assert (items["router"].count, items["router"].usd) == (1, pytest.approx(1.861 * MONTH_H))
    assert items["router"].idle_usd == pytest.approx((1 - 4 / 150) * 1.861 * MONTH_H)
    assert (items["head"].count, items["ingress"].count) == (1, 0)


def test_the_total_is_the_sum() -> None:
    found = bill(result(), ground())
    assert found.usd == pytest.approx(sum(item.usd for item in found.items))
    assert found.idle_usd == pytest.approx(sum(item.idle_usd for item in found.items))


def test_all_large_pays_for_no_router() -> None:
    found = bill(result(mean={"large": 2.0}, use={"large": 0.5}), ground())
    assert [item.name for item in found.items] == ["large tier", "head", "ingress"]


def test_every_cell_has_a_head_and_a_router() -> None:
    items = {item.name: item for item in bill(result(), ground(rate=400.0, cells=10)).items}
    assert (items["head"].count, items["router"].count) == (10, 10)
    more = {item.name: item for item in bill(result(), ground(rate=4000.0, cells=10)).items}
    assert more["router"].count == 40  # 400 a second each, 105 a router


def test_cores_are_requests_chunks_and_embeddings() -> None:
    here = ground(rate=10.0, request_cpu_s=0.004, chunk_cpu_s=0.0002, embed_cpu_s=0.03)
    assert cores(result(), here, routed=True) == pytest.approx(10 * (0.004 + 400 * 0.0002 + 0.03))
    assert cores(result(), here, routed=False) == pytest.approx(10 * (0.004 + 400 * 0.0002))


def test_nodes_without_a_gpu_are_added_where_the_gpu_nodes_have_no_room() -> None:
    """Spare: 2 x 2 + 1.5 x 40 + a router's 2, 66 cores; 1,000 requests a second need 114 cores, 190 at 60 %."""
    few = {item.name: item for item in bill(result(), ground(rate=300.0)).items}
    many = {item.name: item for item in bill(result(), ground(rate=1000.0, router_rate=1e6)).items}
    spare = 2 * 2 + 1.5 * 40 + 2
    busy = 1000 * (0.004 + 400 * 0.00018 + 0.03)
    assert few["ingress"].count == 0
    assert many["ingress"].count == -(-(busy / 0.6 - spare) // 8)


def test_an_instance_without_a_price_is_named() -> None:
    with pytest.raises(SettingsError, match=r"g6e\.huge: no price"):
        prices().of("g6e.huge")


def test_prices_are_dated_and_those_of_the_profile() -> None:
    from serve_app.settings import parse

    known = prices()
    assert known.date == "2026-02"
    fleet = parse({"profile": "g6e"}).fleet
    assert {node.instance: node.usd_per_hour for node in fleet if node.gpus} == {
        node.instance: known.of(node.instance).usd_per_hour for node in fleet if node.gpus
    }


def test_both_tiers_have_a_price() -> None:
    from serve_app.planning.derive import engines as derived

    assert {prices().of(derived()[tier].instance).usd_per_hour for tier in Tier} == {1.861, 10.493}
