"""A calibration that comes while requests are answered: it is in force as a whole with its threshold, or not at all."""

import asyncio
import hashlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import artefacts
from serve_app.deployments.artefacts import LiveCalibration, Refusal, Shelf
from serve_app.domain import Score, Tier
from serve_app.errors import NotReady
from serve_app.observe.artefacts import Part
from serve_app.routing import score as scoring
from serve_app.routing.score import Artefact
from serve_app.scoring import Scorer
from serve_app.settings import Live
from tests.fakes import FOREVER, World, calibration, make_request, make_scorer, soon, until


def blob_of(threshold: float, embedder: str = "fake") -> bytes:
    return scoring.dump(replace(calibration(threshold), embedder=embedder))


def name_of(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


OLD, NEW = scoring.load(blob_of(0.65)), blob_of(0.3)


class Setting:
    """A replica's calibration over a shelf of blobs; `waits` are the pauses between its tries, each until `again` is set."""

    def __init__(self, part_bytes: int = 1000) -> None:
        self.blobs: dict[str, bytes] = {}
        self.broken: BaseException | None = None
        self.part_bytes = part_bytes
        self.asked: list[int] = []
        self.waits: list[float] = []
        self.again = asyncio.Event()
        self.refusals: list[Refusal] = []
        self.live, self.artefact = Live(), OLD
        self.calibration = LiveCalibration(
            OLD, fetch=self.fetch, embedder="fake", put=self.put, refused=self.refusals.append, sleep=self.sleep
        )

    def keep(self, blob: bytes) -> str:
        self.blobs[name_of(blob)] = blob
        return name_of(blob)

    async def fetch(self, name: str, start: int) -> Part | None:
        self.asked.append(start)
        await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        blob = self.blobs.get(name)
        return None if blob is None else Part(len(blob), blob[start : start + self.part_bytes])

    def put(self, live: Live, artefact: Artefact) -> None:
        self.live, self.artefact = live, artefact

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.again.wait()
        self.again.clear()

    @property
    def in_force(self) -> tuple[str, object]:
        return self.artefact.sha256, self.live.threshold

    async def arrives(self, blob: bytes) -> None:
        await until(lambda: self.artefact.sha256 == name_of(blob))


async def test_a_new_artefact_comes_in_parts_and_with_its_own_threshold() -> None:
    setting = Setting()
    setting.calibration.want(Live(threshold=0.9))
    setting.calibration.want(Live(calibration=setting.keep(NEW), threshold="auto", mode="shadow"))
    assert setting.in_force == (OLD.sha256, 0.9), "the pair stays together until the artefact is here"
    assert setting.live.mode == "shadow", "all else is taken over at once"
    await setting.arrives(NEW)
    assert setting.in_force == (name_of(NEW), "auto")
    assert setting.artefact.threshold == 0.3
    assert setting.asked == list(range(0, len(NEW), 1000))
    assert setting.refusals == []
    assert setting.calibration.status() == {
        "wanted": name_of(NEW),
        "in_force": name_of(NEW),
        "kind": "label",
        "threshold": 0.3,
        "problem": None,
        "tries": 0,
    }


async def test_the_profiles_own_is_back_at_once_and_needs_no_ledger() -> None:
    setting = Setting()
    setting.calibration.want(Live(calibration=setting.keep(NEW)))
    await setting.arrives(NEW)
    setting.broken = NotReady("away")
    for name in ("profile", OLD.sha256):
        setting.calibration.want(Live(calibration=name, threshold=0.5))
        assert setting.in_force == (OLD.sha256, 0.5)
    assert setting.refusals == []


async def test_a_ledger_that_is_away_is_asked_again_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting()
    setting.broken = NotReady("away")
    name = setting.keep(NEW)
    setting.calibration.want(Live(calibration=name))
    for number in range(1, 9):
        await until(lambda number=number: len(setting.waits) == number)
        setting.again.set()
    assert setting.waits[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    status = setting.calibration.status()
    assert (status["wanted"], status["in_force"], status["problem"]) == (name, OLD.sha256, "the ledger does not answer (NotReady)")
    await until(lambda: len(setting.waits) == 9)
    setting.broken = None
    setting.again.set()
    await setting.arrives(NEW)
    assert setting.refusals == [Refusal.AWAY] * 9
    assert len([line for line in caplog.messages if "refused" in line]) == 1, "each try would say the same again"
    assert setting.calibration.status()["problem"] is None


@pytest.mark.parametrize(
    ("blob", "why", "says", "again"),
    [
        (None, Refusal.UNKNOWN, "no such artefact", True),
        (NEW[:-1] + b"x", Refusal.DAMAGED, "not what its name says", True),
        (NEW[:-10], Refusal.DAMAGED, "not what its name says", True),
        (b"", Refusal.DAMAGED, "not what its name says", True),
        (blob_of(0.3, "another"), Refusal.UNSUITABLE, "made with embedder another, this one is fake", False),
        (b"no artefact", Refusal.UNSUITABLE, "not a calibration artefact", False),
    ],
    ids=["unknown", "a bit", "cut", "empty", "embedder", "no artefact"],
)
async def test_what_is_wrong_leaves_the_old_one_in_force(
    blob: bytes | None, why: Refusal, says: str, again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    setting = Setting()
    suitable = why is not Refusal.UNSUITABLE
    name = name_of(NEW if suitable or blob is None else blob)
    if blob is not None:
        setting.blobs[name] = blob
    setting.calibration.want(Live(calibration=name, threshold=0.1))
    await until(lambda: setting.refusals)
    await until(lambda: setting.waits or setting.calibration._bringing.done())
    assert (setting.in_force, setting.refusals) == ((OLD.sha256, "auto"), [why])
    assert says in setting.calibration.status()["problem"]
    assert bool(setting.waits) is again, "what can never succeed is not tried again"
    (line,) = [one.getMessage() for one in caplog.records]
    assert line.startswith(f"the calibration {name[:12]} is refused, the old one stays in force: ")
    setting.calibration.stop()


async def test_an_artefact_whose_loading_breaks_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    monkeypatch.setattr(artefacts, "load", lambda *_: {}["meta"])
    setting.calibration.want(Live(calibration=setting.keep(NEW)))
    await soon(setting.calibration.settled(FOREVER))
    assert (setting.refusals, setting.artefact) == ([Refusal.UNSUITABLE], OLD)
    assert setting.calibration.status()["problem"] == "cannot be loaded (KeyError)"


async def test_what_is_not_wanted_any_more_does_not_come() -> None:
    setting = Setting()
    setting.broken = NotReady("away")
    setting.calibration.want(Live(calibration=setting.keep(NEW)))
    await until(lambda: setting.waits)
    other = blob_of(0.2)
    setting.broken = None
    setting.calibration.want(Live(calibration=setting.keep(other)))
    setting.again.set()
    await setting.arrives(other)
    setting.calibration.want(Live(calibration=name_of(NEW)))
    setting.calibration.want(Live())
    await asyncio.sleep(0.02)
    assert setting.artefact is OLD


async def test_a_start_waits_for_its_artefact_and_not_for_ever() -> None:
    setting = Setting()
    setting.calibration.want(Live(calibration=setting.keep(NEW)))
    await soon(setting.calibration.settled(FOREVER))
    assert setting.artefact.sha256 == name_of(NEW)
    setting.broken = NotReady("away")
    setting.calibration.want(Live(calibration="0" * 64))
    await soon(setting.calibration.settled(0.02))
    assert setting.artefact.sha256 == name_of(NEW)
    setting.calibration.stop()
    await soon(setting.calibration.settled(FOREVER))


async def test_a_ledger_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_: object) -> None:
        await asyncio.sleep(FOREVER)

    monkeypatch.setattr(artefacts, "PART_S", 0.01)
    handle: Any = SimpleNamespace(artefact=SimpleNamespace(remote=hangs))
    with pytest.raises(TimeoutError):
        await soon(Shelf(handle).part("0" * 64, 0))


async def test_a_request_keeps_the_artefact_and_the_threshold_that_it_began_with() -> None:
    """The conversation of a request is scored after its last turn: a swap in between must not mix two artefacts."""
    world = World(score=0.1)
    pipeline = world.pipeline()
    old = world.scorer
    new = old.with_calibration(replace(scoring.load(NEW), logistic=scoring.Logistic(1.0, 20.0)))  # everything is hard
    swapped: list[str] = []

    def swap(text: str) -> float:
        world.scorer, world.live = new, Live(threshold=0.3)
        swapped.append(text)
        return 0.1

    world.embedder.by_text = swap
    request = make_request("hello", earlier=("good morning",))
    decision = await pipeline.decide(request)
    assert swapped == ["hello", "good morning"]
    assert (decision.score.calibration, decision.threshold, decision.tier) == ("fake-hash", 0.65, Tier.SMALL)
    decision = await pipeline.decide(request)
    assert (decision.score.calibration, decision.threshold, decision.tier) == (name_of(NEW), 0.3, Tier.LARGE)


async def test_another_artefacts_scores_are_not_remembered() -> None:
    async def ask(scorer: Scorer) -> Score:
        return await scorer.score("hello", Live(), 0.65)

    world = World(score=0.4)
    one = make_scorer(world)
    first = await ask(one)
    second = await ask(one.with_calibration(replace(calibration(), sha256="other-hash", logistic=scoring.Logistic(2.0, 0.0))))
    assert (first.calibration, second.calibration, len(world.embedder.texts)) == ("fake-hash", "other-hash", 2)
    assert (first.value == second.value, await ask(one) == await ask(one), len(world.embedder.texts)) == (False, True, 2)


async def test_a_dead_signal_rests_on_under_another_artefact() -> None:
    world = World(score=RuntimeError("dead"))
    one = make_scorer(world)
    for number in range(12):
        await one.score(f"hello {number}", Live(self_assessment=False), 0.65)
    asked = len(world.embedder.texts)
    await one.with_calibration(calibration()).score("again", Live(self_assessment=False), 0.65)
    assert len(world.embedder.texts) == asked < 13
