"""Headers that Serve reads before any code of ours, on both transports."""

import socket

import httpx
import pytest

from tests.graph import Graph


def raw(graph: Graph, header: bytes) -> tuple[int, bytes]:
    """A request with one header as these bytes, which no HTTP library would send."""
    url = httpx.URL(graph.url)
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(b"GET /probe/pids?count=1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + header + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_a_client_cannot_shorten_serves_timeout(graph: Graph) -> None:
    """`unknown` takes four seconds."""
    answer = httpx.get(f"{graph.url}/probe/unknown", headers={"x-request-timeout-seconds": "0.2"}, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"used": None})


def test_a_client_cannot_keep_its_request_running_after_it_left(graph: Graph) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{graph.url}/probe/linger", headers={"x-request-disconnect-disabled": "?1"}, timeout=0.5)
    assert httpx.get(f"{graph.url}/probe/lingered", timeout=30).json() == {"cancelled": True}


@pytest.mark.parametrize("name", [b"x-session-id", b"x-request-id", b"x-request-timeout-seconds", b"serve_multiplexed_model_id"])
def test_bytes_that_are_not_utf8_never_break_the_proxy(graph: Graph, name: bytes) -> None:
    status, body = raw(graph, name + b": \xff\xfe")
    assert status == (400 if name == b"x-session-id" else 200)
    assert b"invalid_request_error" in body or status == 200


def test_only_a_plain_request_id_is_echoed(graph: Graph) -> None:
    def echoed(value: str) -> str:
        return httpx.get(f"{graph.url}/probe/pids?count=1", headers={"x-request-id": value}, timeout=20).headers["x-request-id"]

    assert echoed("mine-1") == "mine-1"
    assert echoed("level=error user=root") != "level=error user=root"
