"""The labels that whatever is timed inside gets: of the endpoint that is served, of the user who asks.

Owns: the context variable and how labels nest. Knows nothing of what is timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType

_NONE: Mapping[str, object] = MappingProxyType({})
_labels: ContextVar[Mapping[str, object]] = ContextVar("pgreflex_labels", default=_NONE)


def current_labels() -> Mapping[str, object]:
    """The labels that hold here; empty outside. The same object until they change."""
    return _labels.get()


@contextmanager
def labelled(labels: Mapping[str, object]) -> Iterator[None]:
    """Inside, `labels` hold beside those of the outside; of the same key the inner one."""
    token = _labels.set(MappingProxyType({**_labels.get(), **labels}))
    try:
        yield
    finally:
        with suppress(ValueError):  # a generator may be left in another context than it was entered in
            _labels.reset(token)
