"""Times and names as the verbs print and read them.

Owns: their spelling. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from pipeline.core.job_filter import STATES
from pipeline.core.span import parse_span


def moment(at: float | None) -> str:
    """Unix seconds as a date and a time, `-` for none."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def first_line(text: str | None, longest: int = 60) -> str:
    """The first line of a text, cut where it is longer."""
    line = (text or "").partition("\n")[0]
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def optional(value: object) -> str:
    """A setting, `-` for none."""
    return "-" if value is None or value == "" else str(value)


def counted(number: int, what: str = "job") -> str:
    """`1 job`, `5,000 jobs`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of a label and its value, aligned."""
    width = max(len(label) for label, _value in pairs)
    return [f"{label:<{width}}  {value}" for label, value in pairs]


def span_option(_context: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """`90`, `90s`, `5m`, `1h30m`, `2d` as seconds."""
    try:
        return None if value is None else parse_span(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def moment_option(_context: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """A date or a time in ISO 8601 as Unix seconds; UTC where it names no zone."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value} is not a time; write 2026-11-01 or 2026-11-01T03:00+01:00") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def states_option(_context: click.Context, _param: click.Parameter, value: str | None) -> list[str] | None:
    """`delayed,ready` as a list of states of a job."""
    states = None if value is None else [one.strip() for one in value.split(",")]
    if states and (wrong := [one for one in states if one not in STATES]):
        raise click.BadParameter(f"{wrong[0] or value!r} is no state; the states are {', '.join(STATES)}")
    return states
