"""Which jobs are meant: `state:failed queue:mail task:shop.* since:2h error:"no route"`.

Owns: the words of the filter and what they stand for. Knows no SQL: its parts become parameters of statements.
"""

from __future__ import annotations

import difflib
import re
from typing import NoReturn

import msgspec

from pipeline.core.span import parse_span
from pipeline.errors import UsageError

LIVE = ("blocked", "delayed", "ready", "running")
ENDED = ("finished", "failed", "cancelled", "expired")
STATES = (*LIVE, *ENDED)
FIELDS = ("state", "queue", "task", "key", "error", "since")
EXAMPLE = 'state:failed queue:mail task:shop.* key:customer:7 since:2h error:"no route"'

_WORD = re.compile(r'(?:([^\s:"]*):)?("(?:[^"\\]|\\.)*"|[^\s"]\S*)?')


class JobFilter(msgspec.Struct, frozen=True):
    """Jobs for which all of this holds; what is empty or None does not matter.

    states: any of them. queues, tasks, keys: patterns of LIKE, any of each. error: a part of the error, in
    whatever case. since: added, or ended, within so many seconds.
    """

    states: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    error: str | None = None
    since: float | None = None

    @property
    def live_states(self) -> tuple[str, ...] | None:
        """Those of jobs that have not ended; None when no such job is meant, () for all of them."""
        return _of(self.states, LIVE)

    @property
    def ended_states(self) -> tuple[str, ...] | None:
        """Those of jobs that have ended; None when no such job is meant, () for all of them."""
        return _of(self.states, ENDED)

    def limited_to(self, states: tuple[str, ...], default: tuple[str, ...], verb: str) -> JobFilter:
        """The same for a verb that only jobs in `states` can meet. Raises UsageError for one that cannot.

        default: which it means when the filter names no state.
        """
        wrong = [state for state in self.states if state not in states]
        if wrong:
            raise UsageError(
                f"jobs that are {wrong[0]} cannot be {verb}", hint=f"The states for this: {', '.join(states)}."
            )
        return msgspec.structs.replace(self, states=self.states or default)


def parse_filter(text: str) -> JobFilter:
    """Read a filter; '' means every job. A field that is given twice, or with commas, means any of its values.

    Raises UsageError that names the fields or the states there are.
    """
    found: dict[str, list[str]] = {}
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _WORD.match(text, position)
        if match is None or match.end() == position:
            _refuse(f"the filter cannot be read from {text[position:]!r} on")
        field, value = match[1], match[2]
        if field is None:
            _refuse(f"{match[0]!r} in the filter has no field")
        if field not in FIELDS:
            close = difflib.get_close_matches(field, FIELDS, n=1)
            _refuse(f"there is no field {field!r} to filter by" + (f"; is {close[0]} meant?" if close else ""))
        if not value or value == '""':
            _refuse(f"the field {field} has no value")
        found.setdefault(field, []).extend(_values(field, value))
        position = match.end()
    return JobFilter(
        states=tuple(dict.fromkeys(_state(one) for one in found.get("state", []))),
        queues=tuple(map(_pattern, found.get("queue", []))),
        tasks=tuple(map(_pattern, found.get("task", []))),
        keys=tuple(map(_pattern, found.get("key", []))),
        error=_single("error", found),
        since=_since(_single("since", found)),
    )


def _values(field: str, value: str) -> list[str]:
    if value.startswith('"'):
        return [re.sub(r"\\(.)", r"\1", value[1:-1])]
    return [one for one in value.split(",") if one] if field in ("state", "queue", "task") else [value]


def _state(name: str) -> str:
    if name not in STATES:
        close = difflib.get_close_matches(name, STATES, n=1)
        raise UsageError(
            f"there is no state {name!r}" + (f"; is {close[0]} meant?" if close else ""),
            hint=f"The states are {', '.join(STATES)}.",
        )
    return name


def _pattern(value: str) -> str:
    """A pattern of LIKE, in which `*` stands for any text and everything else for itself."""
    return re.sub(r"([\\%_])", r"\\\1", value).replace("*", "%")


def _single(field: str, found: dict[str, list[str]]) -> str | None:
    values = found.get(field, [])
    if len(values) > 1:
        _refuse(f"the field {field} can be given once")
    return values[0] if values else None


def _since(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_span(value)
    except ValueError as error:
        raise UsageError(f"since: {error}", hint="Such as since:2h for the last two hours.") from None


def _of(wanted: tuple[str, ...], states: tuple[str, ...]) -> tuple[str, ...] | None:
    meant = tuple(state for state in wanted if state in states)
    return None if wanted and not meant else meant


def _refuse(message: str) -> NoReturn:
    raise UsageError(message, hint=f"The fields are {', '.join(FIELDS)}: {EXAMPLE}")
