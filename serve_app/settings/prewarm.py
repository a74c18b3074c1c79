"""Settings of warm and cold engines: probes in quiet hours, and requests for a large tier that sleeps."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from serve_app.routing import schedule
from serve_app.settings.strict import PositiveInt, Seconds, Strict


def _window(text: str) -> str:
    schedule.parse(text)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # an unknown name, a folder of them, and what is no name at all
        raise ValueError("no such time zone; names look like Europe/Berlin") from None
    return name


class PrewarmSettings(Strict):
    """Requests that an engine's replica makes itself while nobody asks. They are in no decision, cost or ledger."""

    every_s: Seconds = Field(default=300.0, description="Time between two probes of an idle replica in off-peak hours, in seconds.")
    off_peak: list[Annotated[str, AfterValidator(_window)]] = Field(
        default_factory=list, description="Hours of the day in which it is probed, such as 22:00-06:00; none: never."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(default="UTC", description="Time zone of `off_peak`, such as Europe/Berlin.")
    timeout_s: Seconds = Field(default=60.0, description="A probe that takes longer has failed, in seconds.")
    start_timeout_s: Seconds = Field(
        default=300.0, description="The first answer of a start, without which no replica is ready, must come within this, in seconds."
    )


class WakingSettings(Strict):
    """What becomes of a request while the large tier has no replica on purpose (`min_replicas: 0` of `LargeTier`)."""

    policy: Literal["wait", "small"] = Field(
        default="wait",
        description="`wait` keeps the request until a replica runs; `small` lets the small tier answer, marked, while one is started.",
    )
    max_wait_s: Seconds = Field(
        default=300.0, description="A request waits for a replica this long at most; then it is a 503 with the time left, in seconds."
    )
    max_waiting: PositiveInt = Field(default=64, description="Requests that wait in one ingress replica at most; more are a 429.")
    guess_s: Seconds = Field(default=120.0, description="How long a start is said to take until one was measured, in seconds.")
