"""Quiet hours: windows of a clock on the wall in some time zone. Pure: time is an argument."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo

WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to, and without, `end`; over midnight when `end` is the earlier one. An `end` of None is midnight."""

    start: time
    end: time | None

    def holds(self, at: time) -> bool:
        if self.end is None:
            return at >= self.start
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


def parse(text: str) -> Window:
    """A window such as `22:00-06:00` or `18:00-24:00`. Raises `ValueError`, in words for whoever wrote it."""
    found = WINDOW.fullmatch(text)
    if found is None:
        raise ValueError("must look like 22:00-06:00")
    start = time(int(found[1]), int(found[2]))
    end = None if found[3] is None else time(int(found[3]), int(found[4]))
    if start == end:
        raise ValueError("begins when it ends; the whole day is 00:00-24:00")
    return Window(start, end)


def within(windows: Iterable[Window], zone: ZoneInfo, now: float) -> bool:
    """Whether the wall clock of `zone` shows a time of one of the windows at `now`, Unix time in seconds.

    Where clocks are put back, the repeated hour counts twice; where they are put forward, the hour that is left out does not come.
    """
    at = datetime.fromtimestamp(now, zone).time()
    return any(window.holds(at) for window in windows)
