"""What generations used: kept in the replica, waited for in the ingress."""

import asyncio

from serve_app.deployments.settlement import ASKED, Inquiries, Settlements
from serve_app.domain import Usage
from tests.fakes import FOREVER, soon


def test_only_what_ended_here_is_told() -> None:
    kept = Settlements()
    kept.keep("r-1", Usage(10, 20, 5))
    assert kept.of(["r-1", "r-2"]) == {"r-1": (10, 20, 5)}


def test_the_oldest_are_forgotten() -> None:
    kept = Settlements(most=2)
    for name in ("r-1", "r-2", "r-3"):
        kept.keep(name, Usage(1, 1))
    assert list(kept.of(["r-1", "r-2", "r-3"])) == ["r-2", "r-3"]


async def test_each_waits_for_its_own_and_is_asked_for_until_it_knows() -> None:
    inquiries = Inquiries()
    waiting = [asyncio.create_task(inquiries.wait(name, FOREVER)) for name in ("r-1", "r-2")]
    await asyncio.sleep(0)
    assert inquiries.open() == ["r-1", "r-2"]
    inquiries.answer({"r-2": (1, 2, 3), "r-9": (9, 9, 9)})
    assert await soon(waiting[1]) == Usage(1, 2, 3)
    assert inquiries.open() == ["r-1"]
    inquiries.answer({"r-1": (4, 5, 6)})
    assert await soon(waiting[0]) == Usage(4, 5, 6)


async def test_two_replicas_that_tell_the_same_do_no_harm() -> None:
    inquiries = Inquiries()
    waiting = asyncio.create_task(inquiries.wait("r-1", FOREVER))
    await asyncio.sleep(0)
    inquiries.answer({"r-1": (1, 2, 3)})
    inquiries.answer({"r-1": (7, 7, 7)})
    assert await soon(waiting) == Usage(1, 2, 3)


async def test_a_wait_that_ends_or_is_given_up_leaves_nothing_behind() -> None:
    inquiries = Inquiries()
    assert await inquiries.wait("r-1", 0.01) is None
    waiting = asyncio.create_task(inquiries.wait("r-2", FOREVER))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert inquiries.open() == []


async def test_one_question_names_a_bounded_number_of_ids() -> None:
    inquiries = Inquiries()
    waiting = [asyncio.create_task(inquiries.wait(f"r-{number}", FOREVER)) for number in range(ASKED + 5)]
    await asyncio.sleep(0)
    assert len(inquiries.open()) == ASKED
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
