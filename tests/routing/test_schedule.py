"""Quiet hours by the clock on the wall, over midnight and over changes of the clock."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from serve_app.routing.schedule import Window, parse, within

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = [parse("22:00-06:00")]


def at(text: str) -> float:
    """Unix time of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "clock", "holds"),
    [
        ("09:00-17:00", "09:00", True),
        ("09:00-17:00", "16:59", True),
        ("09:00-17:00", "17:00", False),
        ("09:00-17:00", "08:59", False),
        ("22:00-06:00", "22:00", True),
        ("22:00-06:00", "00:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("22:00-06:00", "12:00", False),
        ("18:00-24:00", "23:59", True),
        ("18:00-24:00", "00:00", False),
        ("00:00-24:00", "00:00", True),
        ("00:00-24:00", "23:59", True),
        ("22:00-00:00", "23:59", True),
        ("22:00-00:00", "00:00", False),
    ],
)
def test_a_window_holds_its_start_and_not_its_end(window: str, clock: str, holds: bool) -> None:
    assert parse(window).holds(time.fromisoformat(clock)) is holds


@pytest.mark.parametrize("text", ["", "22-06", "22:00", "24:00-06:00", "22:60-06:00", "22:00-06:00 ", "9:00-17:00", "22:00-25:00"])
def test_what_is_no_window_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="22:00-06:00"):
        parse(text)


def test_a_window_that_ends_when_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="00:00-24:00"):
        parse("06:00-06:00")


def test_the_hours_are_those_of_the_zone() -> None:
    noon, late = at("2026-01-15 12:00"), at("2026-01-15 21:30")
    assert not within(NIGHT, BERLIN, noon)
    assert within(NIGHT, BERLIN, late), "22:30 in Berlin"
    assert not within(NIGHT, ZoneInfo("UTC"), late)


def test_the_same_hour_of_the_wall_counts_in_summer_and_in_winter() -> None:
    """21:00 UTC is 22:00 in Berlin in winter and 23:00 in summer; 20:30 UTC is 21:30 and 22:30."""
    assert not within(NIGHT, BERLIN, at("2026-01-15 20:30"))
    assert within(NIGHT, BERLIN, at("2026-07-15 20:30"))


def test_a_window_in_the_repeated_hour_counts_twice_and_one_in_the_hour_left_out_never() -> None:
    """In Berlin 2026-10-25 has 02:30 twice, 2026-03-29 has none."""
    half_past_two = [parse("02:30-02:31")]
    assert [within(half_past_two, BERLIN, at(f"2026-10-25 0{hour}:30")) for hour in (0, 1, 2)] == [True, True, False]
    day = at("2026-03-29 00:00")
    assert not any(within(half_past_two, BERLIN, day + 60 * minute) for minute in range(24 * 60))


def test_one_of_several_windows_is_enough_and_none_is_never() -> None:
    both = [Window(time(1), time(2)), Window(time(3), time(4))]
    assert [within(both, ZoneInfo("UTC"), at(f"2026-01-15 0{hour}:30")) for hour in (0, 1, 2, 3, 4)] == [False, True, False, True, False]
    assert not within([], ZoneInfo("UTC"), at("2026-01-15 01:30"))
