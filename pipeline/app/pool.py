"""`pipeline.create_pool`: a pool of asyncpg for an application, whose figures go where all timings go.

Owns: what the options may look like, and which pools are open in this process. Knows nothing of how a pool works.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any
from weakref import WeakSet

from pipeline.app import instrumenting
from pipeline.app.timing import recorder
from pipeline.config import load
from pipeline.core.cachekey import seconds
from pipeline.core.pool_options import PoolOptions
from pipeline.core.status import PoolStatus
from pipeline.db.pool import Pool
from pipeline.log import as_guest

Span = float | str | timedelta
ADDRESS = frozenset({"host", "port", "user", "password", "passfile", "database", "service"})

_open: WeakSet[Pool] = WeakSet()


def create_pool(
    dsn: str | None = None,
    *,
    name: str | None = None,
    min_size: int = 1,
    max_size: int = 10,
    acquire_timeout: Span | None = 5.0,
    connect_timeout: Span = 30.0,
    idle_timeout: Span = 600.0,
    check_after: Span = 5.0,
    reset_timeout: Span = 5.0,
    leak_after: Span | None = 60.0,
    close_timeout: Span | None = 10.0,
    max_queries: int = 50_000,
    statement_timeout: Span | None = None,
    lock_timeout: Span | None = None,
    idle_in_transaction_timeout: Span | None = None,
    instrument: bool = False,
    **driver: Any,
) -> Pool:
    """A pool that is fair and explains itself, to be opened by `async with` or `await`; an asyncpg.Pool.

    dsn: as everywhere; what is not given comes from the configuration. name: for reports and series, "main" and so
    on by itself. instrument: time every query, as `pipeline.instrument` does. Times are seconds, or written like
    "30s", "10m"; None where it is allowed means no bound. driver:
    what asyncpg.create_pool takes besides, such as init, setup, server_settings or target_session_attrs. The
    options are those of PoolOptions. Opening it raises LoginFailed, DatabaseUnavailable and PoolTooLarge.
    """
    # the names that a call written for asyncpg has
    connect_timeout = driver.pop("timeout", connect_timeout)
    idle_timeout = driver.pop("max_inactive_connection_lifetime", idle_timeout)
    options = PoolOptions(
        name=name or free_name(),
        min_size=min_size,
        max_size=max_size,
        acquire_timeout=seconds(acquire_timeout),
        connect_timeout=seconds(connect_timeout) or 0,
        idle_timeout=seconds(idle_timeout) or 0,
        check_after=seconds(check_after) or 0,
        reset_timeout=seconds(reset_timeout) or 0,
        leak_after=seconds(leak_after),
        close_timeout=seconds(close_timeout),
        max_queries=max_queries,
        statement_timeout=seconds(statement_timeout),
        lock_timeout=seconds(lock_timeout),
        idle_in_transaction_timeout=seconds(idle_in_transaction_timeout),
    )
    as_guest()
    labels = {"pool": options.name}
    pool = Pool(
        dsn if dsn is not None or driver.keys() & ADDRESS else load().config.dsn,
        options,
        waits=recorder.series("pool.wait", labels, "pool"),
        holds=recorder.series("pool.held", labels, "pool"),
        **driver,
    )
    _open.add(pool)
    return instrumenting.instrument(pool) if instrument else pool


def free_name() -> str:
    """main, main-2 and so on, whichever no open pool of this process has."""
    taken = {pool.options.name for pool in _open if not pool.is_closed()}
    return next(name for n in count(1) if (name := "main" if n == 1 else f"main-{n}") not in taken)


def open_pools() -> tuple[PoolStatus, ...]:
    """How the open pools of this process do, by name."""
    return tuple(sorted((pool.stats() for pool in _open if pool.is_open()), key=lambda one: one.name))
