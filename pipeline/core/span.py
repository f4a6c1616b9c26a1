"""Spans of time as people write them: `90s`, `5m`, `1h30m`, `2d`.

Owns: those words. Knows nothing of what a span is for.
"""

from __future__ import annotations

import re

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
LONGEST = 100 * 366 * 86_400.0


def parse_span(text: str) -> float:
    """Seconds. A number without a unit is seconds. Raises ValueError."""
    parts = _PART.findall(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != text or seconds > LONGEST:
        raise ValueError(f"{text} is not a time; write 90s, 5m, 1h30m or 2d")
    return seconds


def show_span(seconds: float) -> str:
    """The two largest units that matter: `2d 3h`, `4m 10s`, `7s`, `0.4s`."""
    if seconds < 10:
        return f"{seconds:.1f}s" if seconds % 1 else f"{seconds:.0f}s"
    whole = int(seconds)
    units = [(whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next(index for index, (number, _unit) in enumerate(units) if number)
    return " ".join(f"{number}{unit}" for number, unit in units[first : first + 2] if number)
