"""A threshold that `tierwise replay --write` puts into a running application, which keeps everything else."""

import json
import time

import httpx

from serve_app.deployments import live_update
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
        api = live_update.ServeApi(graph.env["RAY_DASHBOARD_ADDRESS"], live_update.token())
        live_update.apply(api, live_update.change(api.details(), {"threshold": "auto"}, "tierwise"))
        api.close()
    wait_for(lambda: chat(graph, EASY).json()["tierwise"]["threshold"] == 0.65, 30, "the old threshold")
