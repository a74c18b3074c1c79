"""The status screen, as a person would read it."""

import io
from typing import Any

import pytest
from rich.console import Console

from serve_app import screen
from serve_app.errors import NotReady

STATUS = {
    "version": "1",
    "profile": "g6e",
    "threshold": 0.65,
    "calibration": "abcdef0123456789",
    "tiers": {
        "small": {"model": "m8", "ready": True, "state": "up", "breaker": "closed", "replicas": 2, "target": 3, "starting": 1}
        | {"running": 12, "waiting": 0, "capacity": 16, "cold_start_s": 49.0},
        "large": {"model": "m70", "ready": False, "state": "asleep", "breaker": "open", "replicas": 0, "target": 0, "eta_s": 61.5},
    },
}
ROW = {"id": "tw-0123456789abcdef", "tier": "small", "score": 0.25, "reason": "score_below", "outcome": "ok", "total_seconds": 1.5}
ROWS = [ROW | {"cost_usd": 1.0, "saved_usd": 7.0}, ROW | {"tier": "large", "score": None, "cost_usd": 8.0, "saved_usd": 0.0}]


def text(answer: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(screen.drawn("http://here", answer, rows))
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def line_of(shown: str, word: str) -> list[str]:
    return next(line for line in shown.splitlines() if line.startswith(word)).split()


def test_each_tier_tells_its_replicas_queue_and_start() -> None:
    shown = text(STATUS, [])
    assert line_of(shown, "small")[:9] == ["small", "up", "m8", "2", "of", "3", "+1", "starting", "12"]
    assert "75%" in line_of(shown, "small")
    assert line_of(shown, "large") == ["large", "asleep", "m70", "0", "of", "0", "open", "in", "61.5", "s"]
    assert "threshold 0.65  calibration abcdef012345" in shown


def test_the_last_decisions_are_summed_up() -> None:
    shown = text(STATUS, ROWS)
    assert line_of(shown, "tw-01234567") == ["tw-01234567", "small", "0.250", "score_below", "ok", "1.50", "7.000000"]
    assert "last 2 decisions: 50% large, $9.000000 spent, $7.000000 saved" in shown


def test_markup_in_an_answer_stays_text() -> None:
    tiers = {"small": {"model": "[red]m[/red]", "ready": True}}
    assert "[red]m[/red]" in text({**STATUS, "tiers": tiers}, [])


def test_watching_goes_on_when_the_endpoint_is_away_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [STATUS, NotReady("http://[fe80::1]: nobody answers"), STATUS | {"threshold": 0.5}]
    seen = iter(answers)

    def status(*_: Any) -> Any:
        answer = next(seen)
        if isinstance(answer, Exception):
            raise answer
        return answer

    pauses = iter([None, None, KeyboardInterrupt()])

    def pause() -> None:
        if (stop := next(pauses)) is not None:
            raise stop

    monkeypatch.setattr(screen, "status", status)
    monkeypatch.setattr(screen, "_decisions", lambda *_: [])
    console = Console(file=io.StringIO(), width=140, force_terminal=True)
    with pytest.raises(KeyboardInterrupt):
        screen.watch("http://here", "", console, pause, live=True)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "http://[fe80::1]: nobody answers" in shown
    assert "threshold 0.5 " in shown
