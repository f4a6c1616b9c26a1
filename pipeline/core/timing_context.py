"""The labels that whatever is timed inside gets: of the endpoint that is served, of the user who asks.

Owns: the context variable and how labels nest. Knows nothing of what is timed.

A label may be known only later: which route a request takes is found out inside of the middleware that times it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType

_NONE: Mapping[str, object] = MappingProxyType({})
Late = Callable[[], Mapping[str, object] | None]


class _Held:
    """The labels of one block. values: with those around it, once all are known."""

    __slots__ = ("late", "outer", "own", "values")

    def __init__(self, own: Mapping[str, object], outer: _Held | None, late: Late | None = None) -> None:
        self.own = own
        self.outer = outer
        self.late = late
        self.values: Mapping[str, object] | None = None

    def gather(self) -> Mapping[str, object]:
        unknown: list[_Held] = []
        held: _Held | None = self
        while held is not None and held.values is None:
            unknown.append(held)
            held = held.outer
        values, known = _NONE if held is None or held.values is None else held.values, True
        for one in reversed(unknown):
            found = one.late() if one.late is not None else None
            values = MappingProxyType({**values, **(found or {}), **one.own})
            known = known and (one.late is None or found is not None)
            if known:
                one.values, one.outer = values, None
        return values


_held: ContextVar[_Held | None] = ContextVar("pgreflex_labels", default=None)


def current_labels() -> Mapping[str, object]:
    """The labels that hold here; empty outside. The same object until they change."""
    held = _held.get()
    if held is None:
        return _NONE
    return held.gather() if held.values is None else held.values


@contextmanager
def labelled(labels: Mapping[str, object], *, late: Late | None = None) -> Iterator[None]:
    """Inside, `labels` hold beside those of the outside; of the same key the inner one.

    late: further ones; asked whenever the labels are wanted, until it knows them. Must not raise.
    """
    outer = _held.get()
    if outer is not None and outer.outer is not None:
        outer.gather()  # a task that starts the next one inside would keep all that were before it
    token = _held.set(_Held(labels, outer, late))
    try:
        yield
    finally:
        with suppress(ValueError):  # a generator may be left in another context than it was entered in
            _held.reset(token)
