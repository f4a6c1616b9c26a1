"""Hides the arguments of a job where they are shown.

Owns: which values a path means, and what stands in their place. Knows nothing of where they are shown. It would
rather hide too much: a value that is not of the shape that a path expects is hidden as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.core.mask import mask_value
from pipeline.core.seal import is_sealed

REDACTED = "[redacted]"
SEALED_TEXT = "[sealed]"
EVERYTHING = ("*",)
SHORTEST = 4  # a text shorter than this is part of too many words to be cut out of them


def redact(args: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The arguments without the values at `paths`: `password`, `card.number`, `*` for every one of them.

    A path leads through lists: `cards.number` is the number of each. Whatever the value is, None as well, the
    text `[redacted]` takes its place.
    """
    hidden = _hidden(dict(args), tuple(paths))
    return hidden if isinstance(hidden, dict) else {}


def shown(args: Mapping[str, Any], paths: Sequence[str] = ()) -> dict[str, Any] | str:
    """The arguments as a person may see them: sealed ones as `[sealed]`, and passwords masked by their names."""
    if is_sealed(args):
        return SEALED_TEXT
    return {key: mask_value(key, value) for key, value in redact(args, paths).items()}


def without(text: str, args: Mapping[str, Any], paths: Sequence[str]) -> str:
    """The text, such as an error's, without the redacted values that it repeats."""
    told = {str(value) for value in _values(dict(args), tuple(paths))}
    for value in sorted(told, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, REDACTED).replace(repr(value)[1:-1], REDACTED)
    return text


def _hidden(value: Any, paths: tuple[str, ...]) -> Any:
    if not paths or value is None:
        return value
    if isinstance(value, dict):
        return {
            key: REDACTED if _ends(str(key), paths) else _hidden(inner, _below(str(key), paths))
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_hidden(inner, paths) for inner in value]
    return REDACTED


def _values(value: Any, paths: tuple[str, ...], *, all_of_it: bool = False) -> Iterator[Any]:
    """Every single value that `paths` hide."""
    if isinstance(value, dict):
        for key, inner in value.items():
            below = _below(str(key), paths)
            yield from _values(inner, below, all_of_it=all_of_it or _ends(str(key), paths))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _values(inner, paths, all_of_it=all_of_it)
    elif (all_of_it or paths) and value is not None and not isinstance(value, bool):
        yield value


def _ends(key: str, paths: tuple[str, ...]) -> bool:
    return any(path in (key, "*") for path in paths)


def _below(key: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    """What is left of the paths that lead through this key; a key may itself contain dots."""
    return tuple(path[len(key) + 1 :] for path in paths if path.startswith(f"{key}."))
