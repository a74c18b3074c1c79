"""Ranges of single numbers."""

import math
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True)
class Bound:
    """Which numbers are right: `low` to `high`, whole ones only where `whole`, without `low` itself where `above`."""

    low: float = 0
    high: float = math.inf
    whole: bool = False
    above: bool = False
    nullable: bool = False

    def complaint(self, value: Any) -> str | None:
        """What is wrong with `value`, or None."""
        if value is None and self.nullable:
            return None
        right_type = is_whole(value) if self.whole else is_number(value)
        if right_type and self.low <= value <= self.high and not (self.above and value == self.low):
            return None
        return f"must be {self}, got {value!r:.60}"

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        return f"{kind} {low}" if self.high == math.inf else f"{kind} {low} and at most {self.high:g}"


def is_whole(value: Any) -> TypeGuard[int]:
    """YAML's `true` is an int to Python."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))
