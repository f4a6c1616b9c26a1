"""Installs and upgrades the schema `pipeline`.

Owns: the order of the files, the lock, the history. Knows nothing of what the files contain.

Numbered files in sql/migrations run once, in order. The files of sql/functions and triggers/ hold only `create or
replace`; each runs again whenever its text has changed. An upgrade is one transaction: tables and the functions
over them change at once, so applications that add jobs meanwhile find those from before or those from after.
Several daemons may start at once: one migrates, the others wait. They poll a try-lock rather than queue for
the lock, because a queued waiter holds a snapshot that `create index concurrently` would wait for. Through a
transaction pooler that transaction begins with the lock, since nothing else would keep it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

import msgspec

from pipeline.db.connection import OwnConnection, connect, translated
from pipeline.db.pooler import transacted
from pipeline.db.statements import folder, statement
from pipeline.errors import Busy, NotInstalled, ServerNotSuitable

LOCK_POLL_SECONDS = 0.1
OLDEST_SERVER = 140000  # server_version_num; 14 brought idle_session_timeout, which the feed relies on


class File(msgspec.Struct, frozen=True):
    """One file of the schema. version: its number, or None for one that repeats. text: its SQL."""

    name: str
    version: int | None
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class Plan(msgspec.Struct, frozen=True):
    """What an upgrade would run, in order."""

    pending: tuple[File, ...]


def files() -> list[File]:
    """All files of the schema in the order in which they run."""
    numbered = [_read(path, int(path.name[:4])) for path in sorted((folder("sql") / "migrations").glob("*.sql"))]
    repeated = [
        _read(path, None)
        for place in (folder("sql") / "functions", folder("triggers"))
        for path in sorted(place.glob("*.sql"))
    ]
    return numbered + repeated


async def migrate(dsn: str | None, *, patience: float = 60.0) -> list[str]:
    """Bring the database to this program's schema; returns the names of the files that ran.

    patience: seconds to wait for another process that migrates. Raises ServerNotSuitable, Busy,
    NotInstalled (the database is newer, or an applied file was changed), PermissionMissing, QueryFailed.
    """
    # functions call each other whatever the order of their files; the tests prepare and call every one
    settings = {"lock_timeout": "10s", "check_function_bodies": "off", "pipeline.own_ddl": "on"}
    connection = await connect(dsn, purpose="migrate", settings=settings)
    try:
        with translated():
            async with transacted(connection, settings):
                await check_server(connection)
                await _lock(connection, patience)
                await connection.execute(statement("admin/create_history"))
                todo = plan(await applied(connection))
                async with connection.transaction():
                    for file in todo.pending:
                        await _run(connection, file)
            return [file.name for file in todo.pending]
    finally:
        await connection.close(timeout=5)


async def status(dsn: str | None) -> Plan:
    """What `migrate` would run now. Raises as `migrate` does."""
    connection = await connect(dsn, purpose="migrate")
    try:
        with translated():
            async with transacted(connection):
                await check_server(connection)
                if await connection.fetchval(statement("admin/has_history")) is None:
                    return plan({})
                return plan(await applied(connection))
    finally:
        await connection.close(timeout=5)


def plan(done: dict[str, str]) -> Plan:
    """Compare the files with the history (name to checksum). Raises NotInstalled when they disagree."""
    known = files()
    unknown = sorted(set(done) - {file.name for file in known if file.version is not None})
    unknown = [name for name in unknown if name.startswith("migrations/")]
    if unknown:
        raise NotInstalled(
            f"this database was migrated by a newer pgreflex ({unknown[-1]})", hint="Upgrade this program."
        )
    changed = [f.name for f in known if f.version is not None and done.get(f.name, f.checksum) != f.checksum]
    if changed:
        raise NotInstalled(
            f"{changed[0]} was changed after it had been applied", hint="Restore the file from its release."
        )
    return Plan(tuple(file for file in known if done.get(file.name) != file.checksum))


async def applied(connection: OwnConnection) -> dict[str, str]:
    """The history: name to checksum."""
    return {row["name"]: row["checksum"] for row in await connection.fetch(statement("admin/history"))}


async def check_server(connection: OwnConnection) -> None:
    """Raises ServerNotSuitable for a server that is too old or does not accept writes."""
    [row] = await connection.fetch(statement("admin/server"))
    if row["version_num"] < OLDEST_SERVER:
        raise ServerNotSuitable(
            f"this server is Postgres {row['version']}; pgreflex needs 14 or newer",
            hint="Upgrade the server, or name another one with --dsn.",
        )
    if row["in_recovery"]:
        raise ServerNotSuitable(
            "this server is a standby and accepts no writes",
            hint="Name the primary, or several hosts with target_session_attrs=read-write in the address.",
        )
    if row["read_only"]:
        raise ServerNotSuitable(
            "this server or role is set to read-only transactions",
            hint="Turn off default_transaction_read_only for this role.",
        )


async def _lock(connection: OwnConnection, patience: float) -> None:
    deadline = time.monotonic() + patience
    kind = "admin/try_migration_lock_briefly" if connection.pooled else "admin/try_migration_lock"
    while not await connection.fetchval(statement(kind)):
        if time.monotonic() > deadline:
            raise Busy(
                f"another process has been migrating this database for {patience:.0f} s",
                hint="Look for it in pg_stat_activity as application `pgreflex migrate`.",
            )
        await asyncio.sleep(LOCK_POLL_SECONDS)


async def _run(connection: OwnConnection, file: File) -> None:
    began = time.monotonic()
    await connection.execute(file.text, timeout=600)
    took = (time.monotonic() - began) * 1000
    await connection.execute(statement("admin/record_migration"), file.name, file.checksum, took)


def _read(path: Path, version: int | None) -> File:
    return File(f"{path.parent.name}/{path.name}", version, path.read_text(encoding="utf-8"))
