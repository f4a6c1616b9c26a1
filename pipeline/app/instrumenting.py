"""Timing the queries of drivers: `pipeline.instrument(pool)`.

Owns: which driver a thing is of, the observer of the process, and who writes what it remembers: the client or
daemon that was opened first and still is, as with the recorder of the process.

    pool = await asyncpg.create_pool(dsn)
    pipeline.instrument(pool)
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from handlers.query_texts import QueryTexts
from pipeline.app.query_observer import QueryObserver, Slow
from pipeline.app.timing import recorder
from pipeline.db.connection import Database
from pipeline.db.queries import Queries

__all__ = ["instrument", "observer", "uninstrument"]

T = TypeVar("T")

observer = QueryObserver(recorder)
os.register_at_fork(after_in_child=observer.reset)

_DRIVERS = {  # by the package that a class comes from
    "asyncpg": "pipeline.db.instrument_asyncpg",
    "psycopg": "pipeline.db.instrument_psycopg",
    "psycopg_pool": "pipeline.db.instrument_psycopg",
    "sqlalchemy": "pipeline.db.instrument_sqlalchemy",
}


_readers: list[tuple[object, float, Slow | None]] = []


def instrument(target: T) -> T:
    """Time every query of an asyncpg Pool or Connection, a psycopg Connection, AsyncConnection or pool, or an
    SQLAlchemy Engine or AsyncEngine, from now on. Returns what it was given.

    The timings are the series `query`, one for each fingerprint and set of labels, and `transaction`. Never
    raises: what cannot be timed works on without, and the log says why, as does the health of the client.
    """
    what = f"{type(target).__module__}.{type(target).__qualname__}"
    try:
        driver = _driver(target)
        if driver is None:
            observer.refused(what, "its driver is not known")
        else:
            driver.instrument(target, observer)
    except Exception as error:  # a version of the driver in which nothing is where it was
        observer.refused(what, f"{type(error).__name__}: {error}")
    return target


def uninstrument(target: T) -> T:
    """Undo `instrument`. Returns what it was given. Never raises."""
    with suppress(Exception):  # as above: then there is nothing to undo
        driver = _driver(target)
        if driver is not None:
            driver.uninstrument(target)
    return target


def texts_of(database: Database) -> QueryTexts:
    """The service that writes down what stands for this process's queries while it is its turn."""
    texts = QueryTexts(Queries(database), observer, mine=lambda: reads(texts))
    return texts


def enter(reader: object, *, slow_ms: float, seen: Slow | None = None) -> None:
    """Take part in reading what the observer has; the first of those who do reads. seen: is told of queries that
    took `slow_ms` or longer.
    """
    _readers.append((reader, slow_ms, seen))
    _turn()


def leave(reader: object) -> None:
    """No longer take part."""
    _readers[:] = [one for one in _readers if one[0] is not reader]
    _turn()


def reads(reader: object) -> bool:
    """Whether it is this one's turn."""
    return bool(_readers) and _readers[0][0] is reader


def _turn() -> None:
    if _readers:
        _, observer.slow_ms, observer.slow = _readers[0]
    else:
        observer.slow = None


def _driver(target: Any) -> ModuleType | None:
    """Imports a driver only for what is of that driver."""
    for kind in type(target).__mro__:
        name = _DRIVERS.get(kind.__module__.split(".")[0])
        if name is not None:
            return import_module(name)
    return None
