"""What a golden run sends and keeps, against the real gateway over fakes; and the command, over a socket."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from click.testing import Result
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.domain import Json, Tier
from serve_app.errors import EngineFailed, RequestError, TierwiseError
from serve_app.evaluate import golden_live_client, golden_live_text
from serve_app.evaluate.golden_live import Course, order
from serve_app.evaluate.golden_live_answers import Arm
from serve_app.evaluate.golden_live_client import Asking
from serve_app.evaluate.golden_live_judge import Judging
from tests.evaluate.golden_runs import GOLDEN, REPO, golden, make_world, transport
from tests.fakes import FOREVER, Pause, World, chunk, failover, stream_script, until
from tests.gateway.conftest import make_app


@pytest.fixture
def world() -> World:
    return make_world()


def test_every_prompt_goes_to_the_router_and_to_the_large_tier(world: World) -> None:
    steps: list[int] = []
    found = golden(world, lambda length: lambda: steps.append(length), max_tokens=9)
    assert found.passed
    assert steps == [24] * 24
    expected = [row.expected_tier for row in GOLDEN[:12]]
    assert len(world.small.calls) == expected.count(Tier.SMALL)
    assert len(world.large.calls) == expected.count(Tier.LARGE) + 12
    for call in (*world.small.calls, *world.large.calls):
        assert (call.body["max_tokens"], call.body["temperature"], call.closed) == (9, 0, True)
    asked = [call.body["messages"][0]["content"] for call in (*world.small.calls, *world.large.calls)]
    assert sorted(asked) == sorted(2 * [row.prompt for row in GOLDEN[:12]])


def test_tokens_dollars_and_reasons_are_the_endpoints_own(world: World) -> None:
    score = world.embedder.by_text
    assert score is not None

    def slowly(text: str) -> float:
        world.clock.advance(0.25)
        return score(text)

    world.embedder.by_text = slowly
    found = golden(world)
    assert max(one.overhead for one in found.run.answers) >= 0.25
    told = {f"{one.arm}/{one.id}": one for one in found.run.answers}
    records = {record.id: record for record in world.ledger.records}
    assert len(records) == len(told) == 24
    for one in told.values():
        assert one.receipt is not None
        record = records[one.receipt.decision_id]
        assert (one.usage.prompt_tokens, one.usage.completion_tokens) == (10, 2 if one.receipt.tier is Tier.SMALL else 3)
        assert (one.receipt.tier, one.receipt.reason) == (record.decision.tier, record.decision.reason)
        assert one.receipt.cost_usd == pytest.approx(record.cost_usd)
        assert one.text == ("ab" if one.receipt.tier is Tier.SMALL else "abc")
        assert one.first_token is not None
        assert 0 < one.first_token <= one.seconds
        assert one.overhead == pytest.approx(record.overhead_seconds, abs=1e-5)
    assert {one.receipt.reason for one in told.values() if one.arm is Arm.ALL_LARGE and one.receipt} == {"explicit_model"}
    assert found.figures.uneven == 0


def test_without_the_baseline_nothing_is_sent_twice(world: World) -> None:
    found = golden(world, baseline=False)
    assert [one.arm for one in found.run.answers] == [Arm.ROUTED] * 12
    assert found.figures.ratios == {}
    assert "no ratios: no baseline was measured" in golden_live_text.as_lines(found)


def test_the_order_within_a_pair_is_drawn_by_the_seed(world: World) -> None:
    drawn = [order(row.id, 0)[0] for row in GOLDEN]
    assert drawn == [order(row.id, 0)[0] for row in GOLDEN]
    assert drawn != [order(row.id, 1)[0] for row in GOLDEN]
    assert 0.4 < drawn.count(Arm.ROUTED) / len(drawn) < 0.6
    sent = golden(world, concurrency=1).run.answers
    assert [one.arm for one in sent] == [arm for row in GOLDEN[:12] for arm in order(row.id, 0)]


def test_no_more_prompts_are_under_way_than_asked_for(world: World) -> None:
    world.small.script = [Pause(0.01), *stream_script("a")]
    world.large.script = [Pause(0.01), *stream_script("a")]
    answers = golden(world, concurrency=3).run.answers
    most = max(sum(one.started <= other.started < one.ended for one in answers) for other in answers)
    assert most == 3


def test_failures_are_counted_listed_and_fail_the_run(world: World) -> None:
    world.large.script = [EngineFailed("the prompt was SECRET")]
    found = golden(world, app={"failures": {"retry": {"most": 0}}})
    failures = found.run.failures
    assert {one.arm for one in failures} == set(Arm)
    assert {one.failure for one in failures} <= {"502 engine_error", "503 not_ready"}  # the breaker opens
    assert not found.passed
    lines = "\n".join(golden_live_text.as_lines(found))
    assert lines.count(" failed (") == len(failures)
    assert "SECRET" not in lines
    assert len(golden_live_text.as_json(found)["failures"]) == len(failures)


def test_an_answer_that_breaks_off_is_a_failure(world: World) -> None:
    world.small.script = [chunk("a", 1), EngineFailed("broken")]
    found = golden(world, baseline=False)
    broken = [one.failure for one in found.run.failures]
    assert broken == ["in the stream: engine_error"] * len(world.small.calls)
    assert broken


def test_an_endpoint_that_only_fails_is_given_up(world: World) -> None:
    world.small.script = world.large.script = [EngineFailed("broken")]
    found = golden(world, limit=None, concurrency=2)
    assert found.run.stopped == "20 requests in a row failed"
    assert 20 <= len(found.run.answers) < 24
    assert golden_live_text.as_lines(found)[-1] == "no prompt was answered"
    assert not found.passed
    json.dumps(golden_live_text.as_json(found), allow_nan=False)


def test_failures_between_answers_do_not_end_a_run(world: World) -> None:
    world.small.script = [chunk("a", 1), EngineFailed("broken")]
    world.failover = failover(world.clock, failures=1000)
    found = golden(world, limit=50, concurrency=1)
    assert found.run.stopped is None
    assert len(found.run.answers) == 100
    assert len(found.run.failures) > 20


async def test_whoever_answers_otherwise_is_a_failure_and_no_crash() -> None:
    bodies = ['data: {"choices": [5]}', 'data: {"choices": [{"delta": "x"}]}', 'data: {"tierwise": 5}', "data: {", '{"choices": []}', ""]

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=bodies.pop() + "\n\n")

    async with httpx.AsyncClient(transport=httpx.MockTransport(reply), base_url="http://localhost") as http:
        while bodies:
            found = await Asking(http, 8, time.monotonic).ask("p0", "hello", Arm.ROUTED)
            assert found.failure in {golden_live_client.NO_RECEIPT, "a chunk that is none of OpenAI's"}
            assert found.receipt is None


def test_an_endpoint_that_is_not_ready_is_sent_nothing(world: World) -> None:
    world.large.is_ready = False
    with pytest.raises(TierwiseError, match=r"not ready: waiting for large$"):
        golden(world)
    assert world.small.calls == world.large.calls == []


def test_a_wrong_key_is_one_line_and_a_right_one_is_sent(world: World) -> None:
    keys = {"keys": {"tw-secret": {}}}
    with pytest.raises(TierwiseError, match=r"/status: answered 401$"):
        golden(world, app=keys, api_key="tw-other")
    assert golden(world, app=keys, api_key="tw-secret", limit=1).passed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"baseline": False, "judging": Judging("agreement")}, "needs the baseline's answers"),
        ({"judging": Judging("taste")}, "--judge taste: none, or one of exact, similarity, agreement, llm"),
        ({"judging": Judging("exact")}, "--judge exact: needs --reference FILE"),
        ({"judging": Judging("llm")}, "--judge llm: needs --endpoint URL and --model NAME"),
        ({"out": Path("/nowhere/run.html")}, "cannot be written there"),
        ({"config": Path("nothing.yaml")}, "nothing.yaml: cannot be read"),
        ({"api_key": "schlüssel"}, "characters that no key has"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(world: World, options: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        golden(world, **options)
    assert world.small.calls == world.large.calls == []


def test_a_judge_reads_both_answers_of_a_prompt(world: World, tmp_path: Path) -> None:
    references = tmp_path / "references.jsonl"
    small = [row for row in GOLDEN[:12] if row.expected_tier is Tier.SMALL]
    references.write_text("".join(json.dumps({"id": row.id, "reference": "abc"}) + "\n" for row in small[1:]))
    found = golden(world, judging=Judging("exact", references))
    assert found.quality is not None
    assert (found.quality.judged, found.quality.without_reference) == (len(small) - 1, 1)
    assert (found.quality.small, found.quality.large) == (0.0, 1.0)
    assert "quality by exact: small 0.000, large 1.000, drift -1.000" in "\n".join(golden_live_text.as_lines(found))


async def test_whoever_cancels_a_run_frees_the_engines_and_has_what_came(world: World) -> None:
    world.large.script = [chunk("a", 1), Pause(FOREVER)]
    small = [row for row in GOLDEN if row.expected_tier is Tier.SMALL][:1]
    large = [row for row in GOLDEN if row.expected_tier is Tier.LARGE][:2]
    async with httpx.AsyncClient(transport=transport(world), base_url="http://localhost") as http:
        course = Course(Asking(http, 8, time.monotonic), [*small, *large], lambda: None, baseline=False)
        task = asyncio.create_task(course.drive(2))
        await until(lambda: len(world.large.calls) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [one.id for one in course.run().answers] == [small[0].id]
    assert [call.closed for call in world.large.calls] == [True, True]


def test_ctrl_c_ends_the_run_and_reports_what_came(world: World) -> None:
    def ticking(_: int) -> Callable[[], None]:
        counted: list[None] = []

        def step() -> None:
            counted.append(None)
            if len(counted) == 5:
                signal.raise_signal(signal.SIGINT)

        return step

    found = golden(world, ticking, limit=None)
    assert found.run.stopped == "interrupted"
    assert 5 <= len(found.run.answers) <= 8
    assert not found.passed
    assert "not whole: interrupted" in golden_live_text.as_lines(found)


# the command, over a socket


@contextmanager
def listening(world: World) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(make_app(world), host="127.0.0.1", port=port, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def config_with(folder: Path, floors: Json) -> Path:
    config = yaml.safe_load((REPO / "deployments.yaml").read_text())
    config["applications"][0]["args"]["golden"] = {"endpoint": floors}
    file = folder / "deployments.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def run(*options: object) -> Result:
    return CliRunner().invoke(app, ["golden", *map(str, options)])


def test_the_first_token_is_timed_when_it_comes_and_a_missed_floor_is_exit_code_1(world: World, tmp_path: Path) -> None:
    world.small.script = [chunk("a", 1), Pause(0.15), *stream_script("a", "b")[1:]]
    world.large.script = list(world.small.script)
    out, config = tmp_path / "run.html", config_with(tmp_path, {"accuracy": 0.5, "p99_ttft_s": 60.0})
    with listening(world) as url:
        done = run("--url", url, "--limit", 4, "--config", config, "--out", out, "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["passed"]
        assert told["groups"]["routed"]["latency"]["mean"] - told["groups"]["routed"]["ttft"]["mean"] > 0.05
        assert out.read_text().startswith("<!doctype html>")
        strict = run("--url", url, "--limit", 2, "--no-baseline", "--config", config_with(tmp_path, {"p99_ttft_s": 0.0001}))
        assert strict.exit_code == 1
        assert "at most 0.0001: missed" in strict.stdout
        world.embedder.by_text = lambda text: 0.05
        lower = run("--url", url, "--limit", 40, "--no-baseline", "--floor", 0.99)
        assert lower.exit_code == 1
        assert "at least 0.99: missed" in lower.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "http://127.0.0.1:9/ready: ConnectError: is tierwise running?"),
        (["--judge", "taste"], "--judge taste: none, or one of exact, similarity, agreement, llm"),
        (["--judge", "llm", "--endpoint", "http://x/v1", "--model", "m", "--key-env", "NO_SUCH"], "--key-env NO_SUCH: the environment"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(options: list[str], says: str) -> None:
    done = run("--url", "http://127.0.0.1:9", "--config", REPO / "deployments.yaml", *options)
    assert done.exit_code == 2
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1
