"""Adding jobs.

Owns: how a call becomes a row: the task that it means, its arguments as JSON, its keys. Knows no worker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pipeline.core.args import args_json, refuse_large
from pipeline.core.seal import Sealer
from pipeline.db import foreign
from pipeline.db.connection import Database, translated
from pipeline.db.statements import statement
from pipeline.errors import TaskError, UsageError
from pipeline.registry import Registry, Task
from pipeline.sealing import keys_beside

COPIED = ("task", "args", "key", "queue", "priority", "max_attempts", "timeout")
COPY_SECONDS = 600.0


class JobProducer:
    """Adds jobs. database: open. registry: to check what is enqueued, where known. sealer: with the keys for
    tasks whose arguments are encrypted.

    Every method raises DatabaseUnavailable, QueryFailed and their kin, never an error of the driver.
    """

    def __init__(
        self, database: Database, *, registry: Registry | None = None, sealer: Sealer | None = None
    ) -> None:
        self._db = database
        self._registry = registry
        self.sealer = sealer or Sealer([], os.urandom)

    async def enqueue(
        self,
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
        conn: object = None,
    ) -> int:
        """Add one job; returns its id. The lower `priority` number runs first. timeout: seconds for one run.

        conn: a connection of the caller's, whose transaction the job belongs to; see pipeline.db.foreign.
        What is not given comes from the task, where it is known. Options as of the SQL function `enqueue`.
        Raises TaskError for arguments that the task does not take, that are not JSON or above 1 MB of it,
        UsageError for a time without a zone.
        """
        name, known = self._resolve(task)
        encoded = _encode(name, known, args or {})
        queue, max_attempts = _options(known, queue, max_attempts)
        keys: dict[str, Any] = {
            "key": key, "unique_key": unique_key, "unique_for": unique_for,
            "unique_states": unique_states, "on_clash": on_clash,
        }  # fmt: skip
        if known is not None:
            keys = keys_beside(known, args or {}, encoded, self.sealer, keys)
            priority = known.priority if priority is None else priority
        values = (
            name, self._stored(name, known, encoded), queue, priority, _unix("run_at", run_at), max_attempts,
            timeout, keys["key"], _unix("expires_at", expires_at), keys["unique_key"], keys["unique_for"],
            keys["unique_states"], keys["on_clash"],
        )  # fmt: skip
        if conn is not None:
            return int(await foreign.fetchval(conn, statement("jobs/enqueue"), values))
        id_: int = await self._db.fetchval("jobs/enqueue", *values)
        return id_

    async def enqueue_many(
        self,
        task: str | Task | Callable[..., Any],
        args: Sequence[Mapping[str, Any]],
        *,
        queue: str | None = None,
        run_at: datetime | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        expires_at: datetime | None = None,
    ) -> list[int]:
        """Add a job for each of `args` in one statement; returns their ids in order. Raises as `enqueue`."""
        name, known = self._resolve(task)
        if known is not None and known.unique is not None:
            async with self._db.transaction() as connection:
                return [
                    await self.enqueue(
                        known, one, queue=queue, run_at=run_at, priority=priority, max_attempts=max_attempts,
                        timeout=timeout, expires_at=expires_at, conn=connection,
                    )
                    for one in args
                ]  # fmt: skip
        keys = [known.key(one) for one in args] if known is not None and known.key_template else None
        if known is not None:
            priority = known.priority if priority is None else priority
        encoded = [self._stored(name, known, _encode(name, known, one)) for one in args]
        queue, max_attempts = _options(known, queue, max_attempts)
        if not encoded:
            return []
        ids: list[int] = await self._db.fetchval(
            "jobs/enqueue_many", name, encoded, queue, priority, _unix("run_at", run_at), max_attempts, timeout,
            _unix("expires_at", expires_at), keys,
        )  # fmt: skip
        return ids

    async def copy(
        self,
        task: str | Task | Callable[..., Any],
        args: Iterable[Mapping[str, Any]],
        *,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Add a job for each of `args` by COPY, all or none; returns how many. For very many: nothing is kept
        in memory.

        Needs the rights of the owner of the schema. Raises as `enqueue`; UsageError for a task that is unique.
        """
        name, known = self._resolve(task)
        if known is not None and known.unique is not None:
            raise UsageError(f"the jobs of task {name} are unique", hint="Use enqueue_many, which looks at each.")
        queue, max_attempts = _options(known, queue, max_attempts)
        if known is not None and priority is None:
            priority = known.priority
        fixed = (queue or "default", priority or 0, 5 if max_attempts is None else max_attempts)
        limit = None if timeout is None else timedelta(seconds=timeout)
        keys: set[str] = set()

        def records() -> Iterator[tuple[Any, ...]]:
            for one in args:
                text = self._stored(name, known, _encode(name, known, one))
                key = known.key(one) if known is not None else ""
                keys.add(key)
                yield (name, text, key, *fixed, limit)

        async with self._db.acquire() as connection, connection.transaction(isolation="read_committed"):
            with translated():
                done = await connection.copy_records_to_table(
                    "job", schema_name="pipeline", records=records(), columns=COPIED, timeout=COPY_SECONDS
                )
                await connection.execute(statement("jobs/ask_lanes"), fixed[0], fixed[1], sorted(keys))
        return int(done.rpartition(" ")[2])

    def _stored(self, name: str, known: Task | None, encoded: bytes) -> str:
        if known is not None and known.encrypt:
            encoded = self.sealer.seal(name, encoded)
        refuse_large(f"the arguments for task {name}", encoded)
        return encoded.decode()

    def _resolve(self, task: str | Task | Callable[..., Any]) -> tuple[str, Task | None]:
        if self._registry is not None:
            known = self._registry.find(task)
        else:
            known = task if isinstance(task, Task) else None
        if known is not None:
            return known.name, known
        if isinstance(task, str) and task:
            return task, None
        raise TaskError("a job needs a task", hint="Give the task's name, or the function itself.")


def _options(known: Task | None, queue: str | None, max_attempts: int | None) -> tuple[str | None, int | None]:
    if known is None:
        return queue, max_attempts
    return queue or known.queue, known.max_attempts if max_attempts is None else max_attempts


def _unix(name: str, at: datetime | None) -> float | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise UsageError(f"{name} has no time zone", hint="Use datetime.now(UTC) + timedelta(...).")
    return at.timestamp()


def _encode(name: str, known: Task | None, args: Mapping[str, Any]) -> bytes:
    if known is not None:
        known.check(args)
    return args_json(name, args)
