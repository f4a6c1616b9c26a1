"""Keys of jobs: templates such as `customer:{customer_id}`, and the rule that a key falls under.

Owns: the form of a template, and how it is filled from a job's arguments. Knows neither tasks nor limits.

SQL fills the same templates with `args ->> 'name'`, so a value here looks as it does there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Any

import msgspec

from pipeline.errors import TaskError

LONGEST_KEY = 200

_PLACE = re.compile(r"\{([^{}]*)\}")


def names_in(template: str) -> tuple[str, ...]:
    """The arguments that a template names. Raises ValueError for one that cannot be filled."""
    names = tuple(_PLACE.findall(template))
    rest = _PLACE.sub("", template)
    if not template or "{" in rest or "}" in rest:
        raise ValueError(f"{template!r} is no template; write the names of arguments in braces: customer:{{id}}")
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"{name!r} is not the name of an argument; a template holds plain names only")
    return names


def rule_of(key: str) -> str:
    """What limits a key: the text before its first colon, or all of it."""
    return key.partition(":")[0]


def check_rule(template: str) -> None:
    """Raises ValueError unless the key of every job of this template falls under the same rule."""
    rule = rule_of(template)
    if not rule or "{" in rule:
        raise ValueError(f"{template!r} is to begin with a word of its own and a colon: customer:{{customer_id}}")


def render_key(template: str, args: Mapping[str, Any]) -> str:
    """The key of a job with these arguments; '' is none.

    Strings go in as they are, numbers and booleans as Postgres prints them, null and what is missing as ''.
    Raises TaskError for a list or an object, and for a key that is too long.
    """
    key = _PLACE.sub(lambda place: _text(template, place[1], args.get(place[1])), template)
    if len(key) > LONGEST_KEY:
        raise TaskError(
            f"the key of the template {template} has {len(key)} characters with these arguments",
            hint=f"A key has at most {LONGEST_KEY}: use an id, not a text.",
        )
    return key


def _text(template: str, name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        value = _plain(template, name, value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if not isfinite(value):
        return ""  # JSON has no other word for it than null
    number = Decimal(msgspec.json.encode(float(value)).decode())  # as jsonb keeps it: 1e20 is printed in full
    return format(number if number else abs(number), "f")


def _plain(template: str, name: str, value: Any) -> str | float:
    """A value that becomes a scalar in JSON: a UUID, a date, an enum."""
    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        plain = value
    if not isinstance(plain, str | int | float):
        raise TaskError(
            f"the argument {name} cannot be part of the key {template}: it is no single value",
            hint="A key is made of texts, numbers and booleans; pass an id as an argument of its own.",
        )
    return plain
