"""From traffic to a plan: what is simulated of a day, and that less of it says the same."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from serve_app.domain import Tier
from serve_app.planning import derive
from serve_app.planning.config import Traffic, prices
from serve_app.planning.plan import Budget, Simulated, Task, default_bounds, grid, initial, replicas, result, simulate
from serve_app.planning.pool import Account
from serve_app.planning.simulation import WAYS, Seen
from serve_app.settings.scaling import parse_scaling
from tests.planning.common import engines, no_progress, speeds

ALL_LARGE, THRESHOLD = WAYS[:2]


def planned(budget: Budget, requests: float = 0.7e6, **changes: object) -> Simulated:
    traffic = Traffic(requests_per_month=requests, output_tokens=100.0, longest_output=300, burst_cv=0.0)
    task = Task(traffic, engines(), prices(), default_bounds(), budget=budget, ways=(THRESHOLD,))
    return simulate(dataclasses.replace(task, **changes), no_progress)  # type: ignore[arg-type]


def test_a_day_is_simulated_whole_as_long_as_it_can_be() -> None:
    whole, parts = grid(1.0, Budget()), grid(19.0, Budget())
    assert (whole.whole, whole.seconds, whole.starts) == (True, 86_400.0, (0.0,))
    assert (parts.whole, len(parts.starts)) == (False, 6)
    assert parts.seconds * 6 * 19.0 == pytest.approx(150_000)
    middles = [start + parts.seconds / 7200 for start in parts.starts]
    assert middles == pytest.approx([2, 6, 10, 14, 18, 22])


def test_windows_say_what_the_whole_day_says() -> None:
    whole = planned(Budget()).results[0]
    parts = planned(Budget(whole_day=0, windowed=8_000, warm_s=600.0)).results[0]
    for tier in Tier:
        assert parts.mean[tier.value] == pytest.approx(whole.mean[tier.value], rel=0.1)
        assert parts.use[tier.value] == pytest.approx(whole.use[tier.value], rel=0.1)
    assert parts.total_p50 == pytest.approx(whole.total_p50, rel=0.05)
    assert parts.total_p99 == pytest.approx(whole.total_p99, rel=0.1)


def test_cells_count_as_often_as_they_are() -> None:
    found = planned(Budget(cell=1e6, whole_day=0, windowed=2_000, warm_s=300.0), requests=4e6)
    one = planned(Budget(whole_day=0, windowed=2_000, warm_s=300.0), requests=1e6)
    assert (found.cells, one.cells) == (4, 1)
    assert found.results[0].mean["large"] == pytest.approx(4 * one.results[0].mean["large"])
    assert found.rate == pytest.approx(4 * one.rate)
    assert found.results[0].use == one.results[0].use


def test_the_same_seed_gives_the_same_plan() -> None:
    budget = Budget(whole_day=0, windowed=2_000, warm_s=300.0)
    assert planned(budget).results == planned(budget).results
    assert planned(budget).results != planned(budget, seed=1).results


def test_a_fleet_begins_with_what_its_rate_needs() -> None:
    engine = speeds(max_num_seqs=10)  # a second for 100 tokens
    traffic = Traffic(output_tokens=100.0)
    assert [replicas(engine, rate, traffic, 0.7) for rate in (0.1, 7.0, 7.1, 70.0)] == [1, 1, 2, 10]


def test_early_exit_begins_with_a_larger_large_tier() -> None:
    traffic = Traffic(large_share=0.1, escalated_share=0.5)
    plain, exits = (initial(traffic, engines(), 100.0, WAYS[number]) for number in (1, 2))
    assert exits[Tier.LARGE] > plain[Tier.LARGE]
    assert exits[Tier.SMALL] < plain[Tier.SMALL]


def test_the_fleet_scales_as_deployments_yaml_says() -> None:
    path = Path(__file__).parents[2] / "deployments.yaml"
    deployments = yaml.safe_load(path.read_text(encoding="utf-8"))["applications"][0]["deployments"]
    configs = {one["name"]: one.get("user_config") for one in deployments}
    for tier, name in ((Tier.SMALL, "SmallTier"), (Tier.LARGE, "LargeTier")):
        assert default_bounds()[tier].scaling == parse_scaling(configs[name])


def seen(seconds: float, count: int, instances: float) -> Seen:
    times = np.linspace(0.1, 1.0, count)
    account = Account(instances=instances * seconds, starting=0.0, busy=seconds, sequences=5 * seconds)
    return Seen(
        seconds, times, times, np.ones(count), 7.0 * count, 2, 0, 0, {Tier.LARGE: account}, {Tier.LARGE: int(instances)}, {Tier.LARGE: 1}
    )


def test_windows_are_put_together() -> None:
    task = Task(Traffic(prompt_tokens=1.0, output_tokens=100.0), engines(), prices(), default_bounds())
    found = result("all large", [seen(100.0, 30, 1.0), seen(100.0, 90, 3.0)], task, cells=2)
    assert (found.answered, found.refused, found.scalings) == (120, 4, {"large": 2})
    assert (found.mean, found.peak) == ({"large": 4.0}, {"large": 6})
    full = 10 / (100 * 0.02)  # ten at a time, two seconds each
    assert found.use["large"] == pytest.approx(120 / full / 400)
    assert found.busy["large"] == pytest.approx(200 / 400)
    assert found.fill["large"] == pytest.approx(1000 / 400 / 10)
    assert found.chunks == 7.0


def test_derived_speeds_keep_to_the_physical_limits() -> None:
    """One stream of the 8B model: 186 tokens a second at the very most, of the 70B model 49; both are marked as not measured."""
    for efficiency in (0.6, 0.8):
        found = derive.engines(efficiency)
        for tier, limit in ((Tier.SMALL, 186.0), (Tier.LARGE, 49.0)):
            alone = 1 / found[tier].step_s(1, 500.0)
            assert 0.8 * efficiency * limit < alone < efficiency * limit * 1.01
            assert not found[tier].measured
    assert derive.engines().large.kv_tokens == pytest.approx(266_161, rel=0.02)
