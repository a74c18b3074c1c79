"""What `tierwise replay --write` and `tierwise promote` put into a running application, which keeps everything else."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from serve_app.calibrations import builtin
from serve_app.deployments import live_update
from serve_app.evaluate import promotion
from serve_app.evaluate.golden_offline import Gate
from serve_app.observe.artefacts import PART_BYTES
from serve_app.observe.tables import artefacts
from serve_app.routing import heads
from serve_app.routing import score as scoring
from tests.evaluate.made_up import fitted
from tests.graph import Graph, wait_for
from tests.ray.test_transports import EASY, chat


def test_a_replayed_threshold_is_put_into_the_running_application_and_nothing_else_changes(graph: Graph) -> None:
    since = str(time.time())  # what other tests asked for by name does not move with the threshold
    answered = [chat(graph, EASY).json()["tierwise"] for _ in range(3)]
    wait_for(
        lambda: len(httpx.get(f"{graph.url}/v1/decisions?since={since}", timeout=10).json()["data"]) >= len(answered), 10, "the ledger"
    )
    before = graph.replicas()
    options = ("--from", since, "--write", "0.0", "--yes", "--app", "tierwise", "--threshold", "0.0", "--json")
    try:
        told = json.loads(graph.run("tierwise", "replay", *options))
        assert (told["rows"] >= 3, told["points"][0]["large_share"]["value"]) == (True, 1.0)
        wait_for(lambda: chat(graph, EASY).json()["tierwise"]["tier"] == "large", 30, "the new threshold")
        assert httpx.get(f"{graph.url}/probe/pids?count=0", timeout=10).status_code == 200, "the other application lives"
        assert graph.replicas() == before
    finally:
        put_live(graph, {"threshold": "auto"})
    wait_for(lambda: chat(graph, EASY).json()["tierwise"]["threshold"] == 0.65, 30, "the old threshold")


def test_a_calibration_is_promoted_and_taken_back_while_it_runs(graph: Graph, tmp_path: Path) -> None:
    """Of either kind; a large one comes in parts. A damaged one leaves the one before in force. No process restarts."""
    gain, label, damaged = (
        heads.dump(replace(fitted(), description={"apgr_low": 0.6, "rows": "x" * PART_BYTES})),
        scoring.dump(replace(builtin(), threshold=0.9)),
        scoring.dump(replace(builtin(), threshold=0.8)),
    )
    url, before = f"sqlite:///{graph.log.parent / 'tierwise.db'}", graph.replicas()
    where = promotion.Where(graph.config, url, "tierwise", graph.env["RAY_DASHBOARD_ADDRESS"], graph.url)
    how = promotion.How(lambda _: None, lambda _: True, "ann")
    file = tmp_path / "mine.npz"
    try:
        for blob, threshold in ((gain, fitted().threshold), (label, 0.9)):
            file.write_bytes(blob)
            with promotion.running(where) as live:
                told = promotion.promote(file, live, how, lambda _: Gate(1.0, (0.9, 1.0), (), {}, ()))
            assert (told["in_force"], told["seen"][:6]) == (True, "1 of 1"), told
            assert routed_by(graph) == (scoring.load(blob).sha256, threshold)
        name = put_damaged(url, damaged)
        put_live(graph, {"calibration": name, "threshold": 0.1})
        wait_for(lambda: "not what its name says" in str(artefact(graph)["problem"]), 20, "the damaged one is refused")
        assert (artefact(graph)["wanted"], *routed_by(graph)) == (name, scoring.load(label).sha256, 0.9)
        put_live(graph, {"calibration": scoring.load(label).sha256, "threshold": "auto"})
        for blob in (gain, None):
            with promotion.running(where) as live:
                assert promotion.rollback(live, how)["in_force"]
            assert routed_by(graph)[0] == scoring.load(blob).sha256 if blob else builtin().sha256
    finally:
        put_live(graph, {"calibration": "profile", "threshold": "auto"})
    assert routed_by(graph) == (builtin().sha256, 0.65)
    assert graph.replicas() == before


def artefact(graph: Graph) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{graph.url}/status", timeout=10).json()["artefact"]
    return found


def routed_by(graph: Graph) -> tuple[str, float]:
    """The calibration and the threshold of a request's receipt."""
    name = chat(graph, EASY).json()["tierwise"]["decision_id"]
    decision = httpx.get(f"{graph.url}/v1/decisions/{name}", timeout=10).json()["decision"]
    return decision["score"]["calibration"], decision["threshold"]


def put_damaged(url: str, blob: bytes) -> str:
    with promotion.opened(url) as shelf:
        name = shelf.put(blob, kind="label", embedder="", report={}, created=0.0)
        with shelf._engine.begin() as connection:
            connection.execute(sa.update(artefacts).where(artefacts.c.sha256 == name).values(blob=blob[:-1] + b"x"))
    return name


def put_live(graph: Graph, values: dict[str, Any]) -> None:
    api = live_update.ServeApi(graph.env["RAY_DASHBOARD_ADDRESS"], live_update.token())
    live_update.apply(api, live_update.change(api.details(), values, "tierwise"))
    api.close()
