"""A calibration is put live only when the checks let it, everything else stays, and the history takes it back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serve_app import remote
from serve_app.calibrations import builtin
from serve_app.cli import app
from serve_app.deployments import live_update
from serve_app.domain import Json, Tier
from serve_app.errors import RequestError, TierwiseError
from serve_app.evaluate import golden_offline, promotion
from serve_app.evaluate.golden import Miss
from serve_app.evaluate.golden_offline import Gate
from serve_app.evaluate.live_check import Pair, Watch
from serve_app.evaluate.promotion import judged, stack
from serve_app.observe.artefacts import Promotion
from serve_app.observe.store import Store
from serve_app.routing import score as scoring
from serve_app.settings import parse
from tests.deployments.test_live_update import OTHER, Serve, details, ours
from tests.evaluate.made_up import fitted
from tests.graph import REPO
from tests.observe.common import query

GOOD = Gate(0.97, (0.94, 0.98), (), {"typos": 0.01}, ())
BAD = Gate(0.6, (0.5, 0.7), (Miss("g-1", Tier.SMALL, Tier.LARGE, 0.9, "score_above", "hi"),), {}, ("golden accuracy 0.600 is below 0.95",))


class Running:
    """A running application behind Serve's API and behind `/status`; its replicas follow what is put, unless they `refuse`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.serve = Serve(details(ours(), OTHER))
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        Store(self.url).close()
        self.gate: Gate = GOOD
        self.gated: list[str] = []
        self.refuse = ""
        monkeypatch.setattr(live_update, "ServeApi", lambda *_: self.serve.api())
        monkeypatch.setattr(golden_offline, "gate", self.check)
        monkeypatch.setattr(remote, "status", self.status)

    def check(self, artefact: scoring.Artefact, *_: Any) -> Gate:
        self.gated.append(artefact.sha256)
        return self.gate

    @property
    def user_config(self) -> Json:
        config: Json = self.serve.told["applications"]["tierwise"]["deployed_app_config"]["deployments"][0]["user_config"]
        return config

    def status(self, url: str, api_key: str) -> Json:
        wanted = self.user_config.get("calibration", "profile")
        now = "old" if self.refuse else "profiles-hash" if wanted == "profile" else wanted
        return {"artefact": {"wanted": wanted, "in_force": now, "problem": self.refuse or None, "replicas": {now: 2}}}

    def run(self, *command: str, said: str = "") -> Result:
        config = str(REPO / "deployments.yaml")
        return CliRunner().invoke(app, [*command, "--config", config, "--ledger", self.url], input=said, env={"USER": "ann"})

    def put(self, *command: str, **options: Any) -> Result:
        return self.run(*command, "--yes", "--timeout", "0", "--json", **options)

    def history(self) -> list[Json]:
        found: list[Json] = json.loads(self.run("calibrations", "--json").stdout)
        return found

    def label(self, threshold: float) -> tuple[Path, str]:
        return self.file(scoring.dump(replace(builtin(), threshold=threshold)))

    def file(self, blob: bytes) -> tuple[Path, str]:
        path = self.folder / "mine.npz"
        path.write_bytes(blob)
        return path, scoring.load(blob).sha256


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    return Running(tmp_path, monkeypatch)


def test_a_checked_artefact_goes_into_the_ledger_and_its_hash_into_the_ingress_alone(running: Running) -> None:
    file, name = running.label(0.7)
    done = running.put("promote", str(file))
    assert done.exit_code == 0, done.output
    (config,) = running.serve.put
    expected = ours()
    expected["deployments"][0]["user_config"] = {"threshold": "auto", "mode": "shadow", "calibration": name}
    assert config["applications"] == [expected, OTHER]
    (kept,) = query(running.url, "select sha256, kind, blob, report, forced from artefacts")
    assert (kept["sha256"], kept["kind"], kept["blob"], kept["forced"]) == (name, "label", file.read_bytes(), 0)
    assert json.loads(kept["report"])["gate"] == {
        "accuracy": 0.97,
        "interval": [0.94, 0.98],
        "misses": 0,
        "flips": {"typos": 0.01},
        "problems": [],
    }
    (line,) = running.history()
    assert {key: line[key] for key in ("action", "calibration", "previous", "by", "forced", "threshold", "previous_threshold")} == {
        "action": "promote",
        "calibration": name,
        "previous": "profile",
        "by": "ann",
        "forced": False,
        "threshold": None,
        "previous_threshold": None,
    }
    told = json.loads(done.stdout)
    assert (told["written"], told["in_force"], told["gate"]["accuracy"]) == (True, True, 0.97)


def test_a_person_sees_both_is_asked_and_is_told_what_to_commit(running: Running) -> None:
    file, name = running.label(0.7)
    done = running.run("promote", str(file), said="n\n")
    assert (done.exit_code, running.serve.put, query(running.url, "select * from artefacts")) == (0, [], [])
    for words in ("0.65 (its own)", "0.7 (its own)", "accuracy 0.970 [0.940, 0.980], 0 misses", "typos 1.0%", f"+calibration: {name}"):
        assert words in done.stderr, words
    done = running.run("promote", str(file), said="y\n")
    assert (done.exit_code, len(running.serve.put)) == (0, 1)
    assert "2 of 2 replicas of the ingress route by it" in done.stderr.replace(name[:12], "it")
    assert f"          calibration: {name}" in done.stderr


def test_what_the_gate_refuses_changes_nothing_unless_it_is_forced_which_is_remembered(running: Running) -> None:
    running.gate = BAD
    file, name = running.label(0.7)
    done = running.put("promote", str(file))
    assert (done.exit_code, running.serve.put, running.history()) == (1, [], [])
    assert "golden accuracy 0.600 is below 0.95" in done.stderr
    assert query(running.url, "select * from artefacts") == []
    done = running.put("promote", str(file), "--force")
    assert (done.exit_code, running.user_config["calibration"]) == (0, name)
    (line,) = running.history()
    assert (line["forced"], line["gate"]["problems"]) == (True, list(BAD.problems))
    assert query(running.url, "select forced from artefacts") == [{"forced": 1}]
    assert "FORCED: golden accuracy" in running.run("calibrations").stdout


def test_force_leaves_no_mark_where_nothing_had_to_be_forced(running: Running) -> None:
    assert running.put("promote", str(running.label(0.7)[0]), "--force").exit_code == 0
    assert [line["forced"] for line in running.history()] == [False]


def test_a_number_that_was_the_threshold_gives_way_and_a_rollback_brings_it_back(running: Running) -> None:
    running.user_config["threshold"] = 0.7
    assert running.put("promote", str(running.label(0.3)[0])).exit_code == 0
    assert running.user_config["threshold"] == "auto"
    assert running.put("rollback").exit_code == 0
    assert running.user_config == {"threshold": 0.7, "mode": "shadow", "calibration": "profile"}
    assert running.put("promote", str(running.label(0.3)[0]), "--keep-threshold").exit_code == 0
    assert running.user_config["threshold"] == 0.7


def test_rollbacks_go_back_step_by_step_and_no_further(running: Running) -> None:
    names = ["profile"]
    for threshold in (0.3, 0.4, 0.5):
        file, name = running.label(threshold)
        assert running.put("promote", str(file)).exit_code == 0
        names.append(name)
    for name in names[-2::-1]:
        assert running.put("rollback").exit_code == 0
        assert running.user_config["calibration"] == name
    done = running.put("rollback")
    assert (done.exit_code, done.stderr) == (2, "nothing was promoted that could be taken back\n")
    assert running.put("rollback", "--to", names[2][:8]).exit_code == 0
    assert running.user_config["calibration"] == names[2]
    assert [(line["action"], line["calibration"]) for line in running.history()[3:]] == [
        ("rollback", name) for name in (names[2], names[1], "profile", names[2])
    ]


def test_a_rollback_does_not_guess(running: Running) -> None:
    file, name = running.label(0.3)
    running.put("promote", str(file))
    running.user_config["calibration"] = "b" * 64
    done = running.put("rollback")
    assert (done.exit_code, "b" * 12 in done.stderr, "--to" in done.stderr) == (2, True, True)
    assert (running.put("rollback", "--to", "0000").exit_code, running.put("rollback", "--to", "").exit_code) == (2, 2)
    store = Store(running.url)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("delete from artefacts")
    store.close()
    done = running.put("rollback", "--to", name)
    assert (done.exit_code, done.stderr) == (2, f"the ledger has no artefact {name[:12]}\n")
    assert len(running.serve.put) == 1


def test_what_is_not_in_force_everywhere_is_no_success(running: Running) -> None:
    running.refuse = "its bytes are not what its name says"
    done = running.put("promote", str(running.label(0.3)[0]))
    assert (done.exit_code, json.loads(done.stdout)["in_force"]) == (1, False)
    assert "not in force after 0 s: 0 of 2 replicas" in done.stderr
    assert running.refuse in done.stderr


def test_what_is_in_force_is_not_put_again(running: Running) -> None:
    file, _ = running.label(0.3)
    running.put("promote", str(file))
    done = running.put("promote", str(file))
    assert (done.exit_code, "in force already" in done.stderr, len(running.serve.put), len(running.gated)) == (0, True, 1, 1)
    assert len(running.history()) == 1


def test_a_file_that_cannot_be_served_is_refused_before_anything_is_asked(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = running.folder / "broken.npz"
    broken.write_bytes(b"no artefact")
    other, _ = running.file(scoring.dump(replace(builtin(), embedder="another")))
    monkeypatch.setattr(promotion, "MOST_BYTES", len(other.read_bytes()))
    large = running.folder / "large.npz"
    large.write_bytes(b"x" * (len(other.read_bytes()) + 1))
    for file, words in (
        (broken, "not a calibration"),
        (other, "embedder another"),
        (large, "larger than"),
        (Path("none.npz"), "No such file"),
    ):
        done = running.put("promote", str(file))
        assert (done.exit_code, words in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    assert (running.gated, running.serve.put) == ([], [])


def test_a_ledger_that_is_not_there_is_not_made(running: Running) -> None:
    running.url = f"sqlite:///{running.folder / 'other.db'}"
    done = running.put("promote", str(running.label(0.3)[0]))
    assert (done.exit_code, "there is no such ledger" in done.stderr, (running.folder / "other.db").exists()) == (2, True, False)
    running.url = "nonsense"
    assert running.put("rollback").exit_code == 2


@pytest.mark.parametrize(
    ("description", "settings", "problem"),
    [
        ({"apgr_low": 0.55}, {}, ""),
        ({"apgr_low": 0.5}, {}, "may be that of random: its 95 % interval begins at 0.500"),
        ({"apgr_low": None}, {}, "does not say how much better than random"),
        ({"apgr_low": 0.4}, {"golden": {"above_random": False}}, ""),
    ],
)
def test_a_gain_artefact_must_be_better_than_random_by_its_own_word(description: Json, settings: Json, problem: str) -> None:
    artefact = replace(fitted(), description=description)
    found = judged(artefact, parse({"profile": "local", **settings}), GOOD).problems
    assert (len(found), problem in "".join(found)) == (bool(problem), True)


def test_an_artefact_of_labels_says_nothing_of_random() -> None:
    assert judged(builtin(), parse({"profile": "local"}), BAD).problems == BAD.problems


def line(action: str, calibration: str, previous: str, **changes: Any) -> Promotion:
    return Promotion(1.0, "tierwise", action, calibration, previous, "ann", **changes)


def test_the_same_artefact_may_be_live_twice() -> None:
    history = [line("promote", "a", "profile", previous_threshold=0.7), line("promote", "b", "a", threshold=0.2), line("promote", "a", "b")]
    bottom = [Pair("profile", 0.7), Pair("a"), Pair("b", 0.2)]
    assert stack(history) == [*bottom, Pair("a")]
    assert stack([*history, line("rollback", "b", "a", threshold=0.2)]) == bottom
    assert stack([*history, line("rollback", "profile", "a")]) == bottom[:1]
    assert stack([*history, line("rollback", "elsewhere", "a")]) == [*bottom, Pair("a"), Pair("elsewhere")]
    assert stack([]) == []


class Endpoint:
    """`/status` by call; the last answer stays."""

    def __init__(self, *answers: Json | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.now = 0.0

    def status(self, *_: str) -> Json:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pause(self, seconds: float) -> None:
        self.now += seconds


def answer(wanted: str, replicas: Json, problem: str | None = None) -> Json:
    return {"artefact": {"wanted": wanted, "in_force": next(iter(replicas)), "replicas": replicas, "problem": problem}}


@pytest.mark.parametrize(
    ("answers", "serve", "everywhere", "says"),
    [
        ([answer("old", {"old": 2}), answer("new", {"old": 1, "new": 1}), answer("new", {"new": 2})], 2, True, "2 of 2 replicas"),
        ([TierwiseError("nobody"), answer("new", {"new": 1})], 1, True, "1 of 1 replicas"),
        ([answer("new", {"new": 1})], 2, False, "not in force after 3 s: 1 of 2 replicas"),
        ([answer("new", {"old": 1}, "the ledger has no such artefact")], 1, False, "the ledger has no such artefact"),
        ([TierwiseError("nobody")], 1, False, "not in force after 3 s: nobody"),
        ([{"tiers": {}, "version": "1"}], 1, False, "ask with an admin's"),
    ],
    ids=["follows", "comes", "too few", "refused", "away", "no admin"],
)
def test_replicas_are_waited_for_and_what_was_seen_is_said(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], serve: int, everywhere: bool, says: str
) -> None:
    endpoint = Endpoint(*answers)
    monkeypatch.setattr(remote, "status", endpoint.status)
    watch = Watch("http://here", seconds=3.0, pause=endpoint.pause)
    seen = watch.until_in_force("new", lambda: serve, clock=lambda: endpoint.now)
    assert (seen.everywhere, says in seen.says) == (everywhere, True), seen.says
    assert endpoint.now <= 3.0


def test_serves_own_count_of_replicas_is_of_the_ingress() -> None:
    told = details()
    assert live_update.replicas(told, "tierwise") == 0
    states = [{"state": state} for state in ("RUNNING", "UPDATING", "STARTING", "STOPPING")]
    told["applications"]["tierwise"]["deployments"] = {"Ingress": {"replicas": states}, "Ledger": {"replicas": states}}
    assert live_update.replicas(told, "tierwise") == 2


def test_an_unreadable_url_is_one_line() -> None:
    with pytest.raises(RequestError, match="none that SQLAlchemy understands"), promotion.opened("nonsense"):
        pass
