"""The large tier scaled by the real policy on a real Ray, with streams on it; times are shortened by settings alone."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.graph import Graph, running, wait_for
from tests.ray.conftest import fake_config

LARGE = 4
QUIET = {"depth": 60.0, "depth_in": 50.0, "out_after_s": 0.5, "in_after_s": 2.0, "cooldown_s": 0.5, "stale_s": 5.0}
EAGER = {**QUIET, "depth": 2.5, "depth_in": 2.0}
CHUNKS_A_SECOND = 10
UPDATE_S = 16.0


@contextmanager
def scaled_graph(folder: Path) -> Iterator[Graph]:
    """The fake graph, in which the large tier alone is scaled, twenty times faster than deployments.yaml has it."""
    config = fake_config()
    config["applications"] = config["applications"][:1]
    listed = config["applications"][0]["deployments"]
    for item in listed:
        if item["name"] != "LargeTier" and item.pop("autoscaling_config", None) is not None:
            item["num_replicas"] = 1
    listed[LARGE]["autoscaling_config"] |= {"max_replicas": 1, "metrics_interval_s": 0.5, "look_back_period_s": 1.5}
    listed[LARGE] |= {"user_config": {"scaling": QUIET}, "graceful_shutdown_timeout_s": 400}
    with running(folder, config, timeout=200) as started:
        yield started


class Stream(threading.Thread):
    """One client that reads a stream of `seconds` to its end; owns what came."""

    def __init__(self, graph: Graph, seconds: float) -> None:
        super().__init__(daemon=True)
        self.words = round(seconds * CHUNKS_A_SECOND)
        self.text, self.error = "", ""
        self._leaving = threading.Event()
        self._graph = graph
        self.start()

    def run(self) -> None:
        message = {"role": "user", "content": "large:long " + "w " * (self.words - 1)}
        body = {"model": "large", "messages": [message], "stream": True}
        try:
            with httpx.stream("POST", f"{self._graph.url}/v1/chat/completions", json=body, timeout=60) as answer:
                for piece in answer.iter_text():
                    self.text += piece
                    if self._leaving.is_set():
                        return
        except httpx.HTTPError as error:
            self.error = repr(error)

    def pid(self) -> int | None:
        """Of the replica that it comes from; None before the first token."""
        found = re.search(r'"pid":(\d+)', self.text)
        return int(found[1]) if found else None

    def leave(self) -> None:
        """Close the connection at the next token."""
        self._leaving.set()
        self.join(30)

    def whole(self) -> bool:
        """Every token came, in order, and then the end."""
        events = [line.removeprefix("data: ") for line in self.text.split("\n\n") if line]
        if not events or events[-1] != "[DONE]":
            return False
        chunks = [json.loads(event) for event in events[:-1]]
        text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk.get("choices", []))
        return text == "".join(f"t{number} " for number in range(self.words))


def deploy(graph: Graph, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the large tier's entry of what runs, by `serve deploy`."""
    config = yaml.safe_load(graph.config.read_text())
    change(config["applications"][0]["deployments"][LARGE])
    graph.config.write_text(yaml.safe_dump(config))
    graph.run("serve", "deploy", str(graph.config))


def states(graph: Graph) -> dict[str, int]:
    """Replicas of the large tier by their state, as `serve status` and the dashboard show them."""
    status = yaml.safe_load(graph.run("serve", "status"))
    return dict(status["applications"]["tierwise"]["deployments"]["LargeTier"]["replica_states"])


def answers(graph: Graph) -> int:
    """The replica that a plain request gets: the least busy one."""
    body = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
    with graph.client() as http:
        return int(http.post("/v1/chat/completions", json=body).json()["pid"])


def stream_of_each(graph: Graph, seconds: float) -> list[Stream]:
    """One stream from each of two replicas; what is more is left again."""
    found: dict[int | None, Stream] = {}
    for _ in range(8):
        stream = Stream(graph, seconds)
        wait_for(lambda: stream.pid() is not None, 20, "a first token")  # noqa: B023 - called before the next one
        if found.setdefault(stream.pid(), stream) is not stream:
            stream.leave()
        if len(found) == 2:
            break
    return list(found.values())


def pids(graph: Graph) -> set[int]:
    return graph.replicas().get("LargeTier", set())


def bounds_and_thresholds(item: dict[str, Any]) -> None:
    item["autoscaling_config"] |= {"max_replicas": 2, "upscale_delay_s": 0.2, "downscale_delay_s": 0.2}
    item["user_config"] = {"scaling": EAGER}


def rolling_update(item: dict[str, Any]) -> None:
    item["ray_actor_options"] = {"num_cpus": 0.11}


def scenario(graph: Graph, seconds: float, note: Callable[[str], object]) -> None:
    """1 -> 2 by changed thresholds alone, 2 -> 1 with a stream on each replica, then an update of the one that is left, with a stream."""
    before = graph.replicas()
    crowd = [Stream(graph, 180) for _ in range(3)]
    time.sleep(2)
    assert graph.replicas() == before, "3 requests are few for the thresholds at start"
    deploy(graph, bounds_and_thresholds)
    wait_for(lambda: len(pids(graph)) == 2, 30, "a second replica by the new thresholds")
    wait_for(lambda: answers(graph) not in before["LargeTier"], 40, "the second replica to answer")
    after, both = graph.replicas(), pids(graph)
    assert {name: after[name] & found for name, found in before.items()} == before, "no process was restarted"
    for stream in crowd:
        stream.leave()
    streams = stream_of_each(graph, seconds)
    assert {stream.pid() for stream in streams} == both
    wait_for(lambda: states(graph).get("RUNNING") == 1, 60, "the scale-in")
    last = Stream(graph, seconds + UPDATE_S)
    note(f"scaled in to one, {len(pids(graph))} processes")
    assert (pids(graph), [stream.is_alive() for stream in streams]) == (both, [True, True]), "the one that leaves still streams"
    deploy(graph, rolling_update)  # Serve begins with it when the scale-in is over
    for stream in streams:
        stream.join(seconds + 60)
    wait_for(lambda: len(pids(graph) - both) == 1, 60, "the updated replica")
    assert (last.pid() in pids(graph), last.is_alive()) == (True, True), "the one that is replaced still streams"
    note(f"updated, {len(pids(graph))} processes")
    last.join(seconds + 60)
    read = [*streams, last]
    note(f"streams of {[stream.words for stream in read]} tokens are whole: {[stream.whole() for stream in read]}")
    assert [(stream.error, stream.whole()) for stream in read] == [("", True)] * 3
    wait_for(lambda: not pids(graph) & both, 30, "the old replicas to be gone")
