"""`tierwise status` on one screen: each tier's queue and replicas, what is in force, and the last decisions. Drawn by rich."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import httpx

from serve_app.domain import Json
from serve_app.errors import TierwiseError
from serve_app.remote import ask, connect, status

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

BAR = 8
SHOWN = 12
COLOURS = {"up": "green", "starting": "yellow", "asleep": "blue", "down": "red"}
TIERS = {"small": "cyan", "large": "magenta"}


def watch(url: str, api_key: str, console: "Console", pause: Callable[[], None], *, live: bool) -> None:
    """Draw the endpoint's state once, or again and again (`live`) until `pause` raises `KeyboardInterrupt`.

    Raises `TierwiseError` when nobody answers the first time; later on the screen says so and goes on.
    """
    screen = drawn(url, status(url, api_key), _decisions(url, api_key))
    if not live:
        console.print(screen)
        return
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(screen, console=console, auto_refresh=False, screen=console.is_terminal) as view:
        while True:
            pause()
            try:
                screen = drawn(url, status(url, api_key), _decisions(url, api_key))
            except TierwiseError as error:
                screen = Text(error.message)  # not a text of rich's: an IPv6 address would be markup
            view.update(screen, refresh=True)


def drawn(url: str, answer: Json, decisions: Sequence[Json]) -> "RenderableType":
    """One screen of `/status` and of the last rows of `/v1/decisions`; either may lack what the key must not see."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = [Text(_heading(url, answer), style="bold"), _tiers(answer["tiers"])]
    if decisions:
        parts += [_recent(decisions), Text(_summary(decisions))]
    return Group(*parts)


def _decisions(url: str, api_key: str) -> list[Json]:
    """Nothing where the ledger is away or the key may not list: the tiers are the point of the screen."""
    try:
        with connect(url, api_key) as client:
            rows = ask(client, "GET", "/v1/decisions?limit=100").get("data")
    except (TierwiseError, httpx.HTTPError):
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _heading(url: str, answer: Json) -> str:
    if "profile" not in answer:  # not for a key that is no admin's
        return f"{url}  version {answer['version']}"
    return f"{url}  profile {answer['profile']}  threshold {answer['threshold']:g}  calibration {answer['calibration'][:12]}"


def _tiers(tiers: Json) -> "Table":
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in ("tier", "state", "model", "replicas", "running", "waiting", "used", "breaker", "start"):
        table.add_column(name, justify="right" if name in {"running", "waiting"} else "left", header_style="dim", no_wrap=True)
    for name, tier in tiers.items():
        state = str(tier.get("state", "up" if tier.get("ready") else "down"))
        table.add_row(
            Text(name, style=TIERS.get(name, "")),
            Text(state, style=COLOURS.get(state, "")),
            Text(str(tier.get("model", ""))),
            Text(_replicas(tier)),
            Text(str(tier.get("running", ""))),
            Text(str(tier.get("waiting", ""))),
            Text(_bar(tier), style="red" if tier.get("waiting") else "green"),
            Text(str(tier.get("breaker", "")), style="" if tier.get("breaker", "closed") == "closed" else "red"),
            Text(_start(tier)),
        )
    return table


def _replicas(tier: Json) -> str:
    if "replicas" not in tier:
        return ""
    coming = f" +{tier['starting']} starting" if tier.get("starting") else ""
    return f"{tier['replicas']} of {tier.get('target', tier['replicas'])}{coming}"


def _bar(tier: Json) -> str:
    """How much of the engines' sequences are in use."""
    capacity = tier.get("capacity") or 0
    if not capacity:
        return ""
    share = min(1.0, tier.get("running", 0) / capacity)
    full = round(share * BAR)
    return f"{'█' * full}{'·' * (BAR - full)} {share:4.0%}"


def _start(tier: Json) -> str:
    if "eta_s" in tier:
        return f"in {tier['eta_s']:g} s"
    return f"{tier['cold_start_s']:g} s" if "cold_start_s" in tier else ""


def _recent(decisions: Sequence[Json]) -> "Table":
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, title_justify="left")
    for name in ("decision", "tier", "score", "reason", "outcome", "seconds", "saved $"):
        table.add_column(name, justify="right" if name in {"score", "seconds", "saved $"} else "left", header_style="dim")
    for row in decisions[:SHOWN]:
        tier, outcome = str(row.get("tier", "")), str(row.get("outcome", ""))
        table.add_row(
            Text(str(row.get("id", ""))[:11]),
            Text(tier, style=TIERS.get(tier, "")),
            Text(_number(row.get("score"), 3)),
            Text(str(row.get("reason", ""))),
            Text(outcome, style="" if outcome == "ok" else "yellow"),
            Text(_number(row.get("total_seconds"), 2)),
            Text(_number(row.get("saved_usd"), 6)),
        )
    return table


def _summary(decisions: Sequence[Json]) -> str:
    large = sum(row.get("tier") == "large" for row in decisions) / len(decisions)
    spent = sum(row.get("cost_usd") or 0.0 for row in decisions)
    saved = sum(row.get("saved_usd") or 0.0 for row in decisions)
    return f"last {len(decisions)} decisions: {large:.0%} large, ${spent:.6f} spent, ${saved:.6f} saved"


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else ""
