"""How far less than everything says the same: `python -m serve_app.planning.agreement`, some minutes.

A whole day against its windows at 10 million requests a month, and one fleet of 40 million against two and four cells of it.
"""

from collections.abc import Iterator
from typing import Any

from serve_app.planning import derive
from serve_app.planning.config import Traffic, prices
from serve_app.planning.cost import Ground, bill
from serve_app.planning.plan import Budget, Simulated, Task, default_bounds, simulate
from serve_app.planning.simulation import WAYS

ALL = 10**9
COMPARED = ("small", "large", "$/month", "TTFT p50", "TTFT p99", "answer p50", "answer p99", "refused")


def planned(requests: float, budget: Budget) -> tuple[Task, Simulated]:
    """Every way without early exit."""
    ways = tuple(way for way in WAYS if not way.early_exit)
    task = Task(Traffic(requests_per_month=requests), derive.engines(), prices(), default_bounds(), budget=budget, ways=ways)
    return task, simulate(task, _quiet)


def _quiet(items: list[Any], _: str) -> Iterator[Any]:
    yield from items


def lines(name: str, task: Task, found: Simulated) -> Iterator[str]:
    for one in found.results:
        usd = bill(one, Ground(task.engines, task.prices, found.rate, found.cells)).usd
        figures = (
            *(f"{one.mean.get(tier, 0.0):.2f}" for tier in ("small", "large")),
            f"{usd:,.0f}",
            *(f"{seconds:.2f}" for seconds in (one.ttft_p50, one.ttft_p99, one.total_p50, one.total_p99)),
            f"{one.refused / max(one.answered + one.refused, 1):.2%}",
        )
        yield f"| {name} | {one.way} | " + " | ".join(figures) + " |"


def main() -> None:
    print("| simulated | way | " + " | ".join(COMPARED) + " |\n|" + "---|" * (len(COMPARED) + 2))
    windows = Budget(whole_day=0, windowed=150_000)
    for name, requests, budget in (
        ("10 M, a whole day", 10e6, Budget(whole_day=ALL)),
        ("10 M, six windows", 10e6, windows),
        ("40 M, one fleet", 40e6, Budget(whole_day=0, windowed=100_000, cell=40e6)),
        ("40 M, two cells", 40e6, Budget(whole_day=0, windowed=100_000, cell=20e6)),
        ("40 M, four cells", 40e6, Budget(whole_day=0, windowed=100_000, cell=10e6)),
    ):
        for line in lines(name, *planned(requests, budget)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
