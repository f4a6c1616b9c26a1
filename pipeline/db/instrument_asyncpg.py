"""Timing every query of asyncpg's pools and connections.

Owns: that a pool's connections are watched, those that it has and those that it opens later, and that nothing is
touched where asyncpg is not as expected. What is reported is said in `watched_asyncpg`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from asyncpg.pool import Pool, PoolConnectionProxy

from pipeline.core.observer import Observer
from pipeline.db.watched_asyncpg import misfit, unwatch, watch


def instrument(target: Any, observe: Observer) -> bool:
    """Report every query of this Pool (open or not yet) or Connection from now on; returns whether it does.

    When asyncpg is not as expected, nothing is touched and `observe.refused` is told why. Once more does nothing
    more, but that reports go to the newest observer. Never raises.
    """
    try:
        reason = misfit() or _unlike(target)
        if reason is None:
            if isinstance(target, Pool):
                _watch_pool(target, observe)
            else:
                reason = watch(target, observe)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        observe.refused(f"asyncpg {asyncpg.__version__}", reason)
    return reason is None


def uninstrument(target: Any) -> None:
    """Give back what `instrument` changed; queries that are running are still reported. Never raises for what
    was not instrumented.
    """
    if not isinstance(target, Pool):
        unwatch(target)
        return
    pool: Any = target
    pool._connect = getattr(pool._connect, "_pgreflex_before", pool._connect)
    for holder in pool._holders:
        if holder._con is not None:
            unwatch(holder._con)


def _unlike(target: Any) -> str | None:
    if isinstance(target, Pool):
        if callable(getattr(target, "_connect", None)) and isinstance(getattr(target, "_holders", None), list):
            return None
        return "its pool keeps its connections elsewhere"
    if isinstance(target, (asyncpg.Connection, PoolConnectionProxy)):
        return None
    return f"a {type(target).__name__} is neither a Pool nor a Connection"


def _watch_pool(pool: Any, observe: Observer) -> None:
    before: Callable[..., Awaitable[Any]] = getattr(pool._connect, "_pgreflex_before", pool._connect)

    async def connect(*args: Any, **kwargs: Any) -> Any:
        connection = await before(*args, **kwargs)
        try:
            reason = watch(connection, observe)
            if reason is not None:
                observe.refused("a connection of a pool", reason)
        except Exception as fault:
            observe.failed(fault)
        return connection

    connect._pgreflex_before = before  # type: ignore[attr-defined]
    pool._connect = connect
    for holder in pool._holders:
        if holder._con is not None and not holder._con.is_closed():
            watch(holder._con, observe)
