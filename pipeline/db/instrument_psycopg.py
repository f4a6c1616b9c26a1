"""Timing every query of psycopg's connections and pools.

Owns: that a pool's connections are watched, and that nothing is touched where psycopg is not as expected. What is
reported is said in `watched_psycopg`. Imports psycopg, so nobody imports it who was not given something of it.
"""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakSet

import psycopg

from pipeline.core.observer import Observer
from pipeline.db.watched_psycopg import unwatch, watch

SEAMS: dict[Any, dict[str, list[str]]] = {  # what is overridden, with the parameters that it must begin with
    psycopg.BaseConnection: {"_exec_command": ["self", "command"]},
    psycopg.Connection: {"close": ["self"]},
    psycopg.AsyncConnection: {"close": ["self"], "wait": ["self", "gen"]},
    psycopg.Cursor: {
        "_start_query": ["self", "query"],
        "_convert_query": ["self", "query", "params"],
        "_execute_gen": ["self", "query", "params"],
        "_check_results": ["self", "results"],
        "_set_results": ["self", "results"],
        "_stream_send_gen": ["self", "query", "params"],
        "_stream_fetchone_gen": ["self", "first"],
        "_close": ["self"],
        "executemany": ["self", "query", "params_seq"],
        "copy": ["self", "statement", "params"],
    },
    psycopg.ServerCursor: {
        "_declare_gen": ["self", "query", "params"],
        "_fetch_gen": ["self", "num"],
        "_scroll_gen": ["self", "value", "mode"],
        "_close_gen": ["self"],
    },
}


def instrument(target: Any, observe: Observer) -> bool:
    """Report every query of this Connection, AsyncConnection or pool of psycopg_pool from now on; returns whether
    it does.

    When psycopg is not as expected, nothing is touched and `observe.refused` is told why. Once more does nothing
    more, but that reports go to the newest observer. Never raises.
    """
    try:
        reason = misfit()
        if reason is not None:
            pass
        elif isinstance(target, (psycopg.Connection, psycopg.AsyncConnection)):
            watch(target, observe)
        elif _is_pool(target):
            _watch_pool(target, observe)
        else:
            reason = f"a {type(target).__name__} is neither a connection nor a pool"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        observe.refused(f"psycopg {psycopg.__version__}", reason)
    return reason is None


def uninstrument(target: Any) -> None:
    """Give back what `instrument` changed; what is running is still reported. Never raises for what was not
    instrumented.
    """
    if not _is_pool(target):
        unwatch(target)
        return
    vars(target).pop("getconn", None)
    for connection in vars(target).pop("_pgreflex_watched", ()):
        unwatch(connection)


def misfit() -> str | None:
    """What about this psycopg is not what this was written against; None when all is."""
    for owner, methods in SEAMS.items():
        for name, parameters in methods.items():
            found = getattr(owner, name, None)
            if found is None:
                return f"{owner.__name__} has no {name}"
            if list(inspect.signature(found).parameters)[: len(parameters)] != parameters:
                return f"{owner.__name__}.{name} takes other arguments"
    return None


def _is_pool(target: Any) -> bool:
    return any(kind.__module__.startswith("psycopg_pool.") for kind in type(target).__mro__) and callable(
        getattr(target, "getconn", None)
    )


def _watch_pool(pool: Any, observe: Observer) -> None:
    """Each connection is watched when it is lent, so it does not matter when or how the pool opened it."""
    get = type(pool).getconn.__get__(pool)
    watched: WeakSet[Any] = vars(pool).get("_pgreflex_watched") or WeakSet()
    for connection in watched:
        watch(connection, observe)

    def lent(connection: Any) -> Any:
        try:
            watch(connection, observe)
            watched.add(connection)
        except Exception as error:
            observe.refused("a connection of a pool", f"{type(error).__name__}: {error}")
        return connection

    def getconn(*args: Any, **kwargs: Any) -> Any:
        return lent(get(*args, **kwargs))

    async def getconn_async(*args: Any, **kwargs: Any) -> Any:
        return lent(await get(*args, **kwargs))

    pool._pgreflex_watched = watched
    pool.getconn = getconn_async if inspect.iscoroutinefunction(get) else getconn
