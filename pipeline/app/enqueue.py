"""Adding jobs from a synchronous program, on the connection that it has.

Owns: the call. Knows nothing of drivers, and opens no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from pipeline.app.keys import sealer_of
from pipeline.config import load
from pipeline.core.seal import Sealer
from pipeline.db.connection import Database
from pipeline.db.foreign import Blocking
from pipeline.db.jobs import JobStore
from pipeline.registry import Task, default


def enqueue_in(
    conn: object,
    task: str | Task | Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    *,
    queue: str | None = None,
    run_at: datetime | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    timeout: float | None = None,
    key: str | None = None,
    expires_at: datetime | None = None,
    unique_key: str | None = None,
    unique_for: float | None = None,
    unique_states: Sequence[str] | None = None,
    on_clash: str | None = None,
    **more: Any,
) -> int:
    """Add a job in the transaction of `conn`; returns its id. The job is there once that transaction commits.

    conn: a psycopg 3 connection or cursor, or a SQLAlchemy connection or session. It is neither committed nor
    rolled back here. The task's arguments are given as `args` or by name. timeout: seconds that one run may
    take. The other options are those of the SQL function `enqueue`. Raises UsageError for another kind of
    object, TaskError when a known task does not take these arguments or has no key to encrypt them with,
    QueryFailed when the transaction has failed already.
    """
    store = JobStore(Database(None), registry=default, sealer=_sealer(task))
    return _at_once(
        store.enqueue(
            task,
            {**(args or {}), **more},
            queue=queue,
            run_at=run_at,
            priority=priority,
            max_attempts=max_attempts,
            timeout=timeout,
            key=key,
            expires_at=expires_at,
            unique_key=unique_key,
            unique_for=unique_for,
            unique_states=unique_states,
            on_clash=on_clash,
            conn=Blocking(conn),
        )
    )


def _sealer(task: str | Task | Callable[..., Any]) -> Sealer | None:
    known = default.find(task)
    return _configured() if known is not None and known.encrypt else None


@cache
def _configured() -> Sealer:
    return sealer_of(load().config)


def _at_once(call: Coroutine[Any, Any, int]) -> int:
    """The result of a coroutine that never waits; so there is one enqueue, not one of each colour."""
    try:
        call.send(None)
    except StopIteration as end:
        return int(end.value)
    call.close()
    raise RuntimeError("enqueue waited for something on a blocking connection")
