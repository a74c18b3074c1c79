"""Feedback through real handles: kept when it is answered, beside a decision whose record had only just been made."""

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.graph import Graph


def test_feedback_is_in_the_receipt_as_soon_as_it_is_answered(graph: Graph) -> None:
    def one(number: int) -> bool:
        body = {"model": "auto", "messages": [{"role": "user", "content": f"hello {number}"}]}
        with graph.client() as http:
            decision_id = http.post("/v1/chat/completions", json=body).json()["tierwise"]["decision_id"]
            for score in (0.25, 0.75):  # the last word holds
                said = http.post("/v1/feedback", json={"decision_id": decision_id, "score": score, "comment": "so so"})
                assert said.status_code == 200, said.text
            told = http.get(f"/v1/decisions/{decision_id}").json()
        return [(item["score"], item["comment"]) for item in told["feedback"]] == [(0.75, "so so")]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(24)))
    unknown = httpx.post(f"{graph.url}/v1/feedback", json={"decision_id": "tw-" + "0" * 32, "good": True}, timeout=30)
    assert unknown.status_code == 404
