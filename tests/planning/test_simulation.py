"""Ways to route, on the same short traffic."""

import dataclasses

import numpy as np
import pytest

from serve_app.domain import Tier
from serve_app.planning.config import Traffic
from serve_app.planning.simulation import WAYS, Seen, Setting, Window
from serve_app.planning.traffic import TO_LARGE, TO_SMALL, Asks
from tests.planning.common import asks, engines, setting, speeds

ALL_LARGE, THRESHOLD, EARLY_EXIT, CAPACITY, _ = WAYS


def run(way: object, given: Setting | None = None, traffic: Asks | None = None, *, warm_s: float = 20.0, seed: int = 0) -> Seen:
    assert dataclasses.is_dataclass(way)
    return Window(way, given or setting(), traffic or asks(4.0, 200.0), warm_s=warm_s, seconds=150.0, seed=seed).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_request_is_answered_refused_or_unfinished_and_the_same_each_time(way: object) -> None:
    traffic = asks(12.0, 200.0)
    seen, again = run(way, traffic=traffic), run(way, traffic=traffic)
    assert seen.asked == int(((traffic.at >= 20.0) & (traffic.at < 170.0)).sum())
    assert (seen.ttft.tolist(), seen.total.tolist(), seen.refused) == (again.ttft.tolist(), again.total.tolist(), again.refused)
    assert bool((seen.ttft <= seen.total + 1e-9).all())
    assert seen.accounts == again.accounts


def test_all_large_has_one_tier() -> None:
    seen = run(ALL_LARGE)
    assert seen.large.mean() == 1.0
    assert set(seen.accounts) == {Tier.LARGE}


def test_the_threshold_splits_and_given_tiers_stay() -> None:
    traffic = asks(4.0, 200.0)
    assert run(THRESHOLD, setting(threshold=0.8), traffic).large.mean() == pytest.approx(0.2, abs=0.05)
    given = np.where(np.arange(len(traffic)) % 4 == 0, TO_LARGE, TO_SMALL).astype(float)
    assert run(THRESHOLD, setting(threshold=0.0), dataclasses.replace(traffic, fixed=given)).large.mean() == pytest.approx(0.25, abs=0.01)


def test_a_small_model_that_is_faster_answers_sooner() -> None:
    assert np.median(run(THRESHOLD, setting(threshold=1.0)).total) < 0.7 * np.median(run(ALL_LARGE).total)


def test_more_replicas_never_make_it_slower_or_refuse_more() -> None:
    traffic = asks(11.0, 200.0)  # one large replica of ten places answers ten a second
    found = [run(ALL_LARGE, setting(initial=dict.fromkeys(Tier, count), most=count), traffic) for count in (1, 2, 4)]
    assert found[0].refused > found[1].refused == found[2].refused == 0
    assert found[0].ttft.mean() > 2 * found[1].ttft.mean()
    assert found[1].ttft.mean() >= found[2].ttft.mean()


def test_more_traffic_is_never_faster() -> None:
    waits = [run(ALL_LARGE, traffic=asks(rate, 200.0)).ttft.mean() for rate in (4.0, 8.0, 9.5)]
    assert waits == sorted(waits)


def test_who_would_wait_too_long_is_refused_and_the_others_wait_no_longer_than_said() -> None:
    seen = run(ALL_LARGE, traffic=asks(30.0, 200.0))
    assert seen.refused > 0.4 * seen.asked
    assert np.quantile(seen.ttft, 0.99) < 15.0  # ten seconds of queue, as estimated


def test_a_drowning_large_tier_gives_less_to_itself() -> None:
    traffic = asks(14.0, 200.0)
    given = setting(threshold=0.2, initial={Tier.LARGE: 1, Tier.SMALL: 3}, most=3)
    bounded = dataclasses.replace(
        given, bounds={**given.bounds, Tier.LARGE: given.bounds[Tier.LARGE].model_copy(update={"max_replicas": 1})}
    )
    static, moved = run(THRESHOLD, bounded, traffic), run(CAPACITY, bounded, traffic)
    assert moved.large.mean() < static.large.mean()
    assert moved.refused < static.refused


def test_an_idle_large_tier_gets_a_little_more() -> None:
    traffic = asks(1.0, 400.0)
    static, moved = run(THRESHOLD, setting(threshold=0.9), traffic), run(CAPACITY, setting(threshold=0.9), traffic)
    assert static.large.mean() < moved.large.mean() <= static.large.mean() + 0.1


def test_early_exit_sends_the_doubted_on_and_holds_back_the_first_tokens() -> None:
    given = setting(threshold=1.0, traffic=Traffic(escalated_share=0.3, watched_tokens=16))
    plain, exits = run(THRESHOLD, given), run(EARLY_EXIT, given)
    assert (plain.large.mean(), plain.escalated) == (0.0, 0)
    assert exits.large.mean() == pytest.approx(0.3, abs=0.05)
    assert exits.escalated == int(exits.large.sum())
    small = exits.ttft[exits.large == 0]
    assert np.median(small) - np.median(plain.ttft) == pytest.approx(15 * 0.01, abs=0.01)
    assert exits.total[exits.large == 1].min() > 0.16  # the watched tokens came first


def test_scoring_is_waited_for_where_it_is_asked_for() -> None:
    scored = engines(service=engines().service.model_copy(update={"route_s": 0.5}))
    assert np.median(run(THRESHOLD, setting(engines=scored)).ttft) > 0.5 > np.median(run(ALL_LARGE, setting(engines=scored)).ttft)


def test_a_burst_pays_for_its_cold_start() -> None:
    slow, fast = (setting(engines=engines(large=speeds(base_s=0.02, cold_start_s=cold)), most=6) for cold in (120.0, 0.0))
    traffic = asks(15.0, 200.0)
    late, early = run(ALL_LARGE, slow, traffic), run(ALL_LARGE, fast, traffic)
    assert late.refused > early.refused
    assert late.accounts[Tier.LARGE].starting > 0 == early.accounts[Tier.LARGE].starting
