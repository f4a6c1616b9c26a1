"""Knowing a connection pooler when one answers, and leaving nothing behind in its sessions.

Owns: how a connection is opened to a server or to a pooler, how the two are told apart, and the transaction
that each use of a pooler is wrapped in. Knows nothing of what is sent.

A pooler in transaction mode lends a server process for one transaction at a time. Whatever stays in a session
(settings, prepared statements, advisory locks, LISTEN) stays with a process that the next transaction does
not get and a stranger's does. So through a pooler a statement runs in a transaction of its own, settings are
local to it, and nothing is prepared by name: not even by versions of PgBouncer that could translate the name.

What can be known for certain:
- A server tells each client the number of its process when it connects, for cancelling. A pooler has no
  process to name yet and makes a number up. So the process that answers has another number than the one
  that was told if, and only if, somebody is in between who may change it. This holds where the pooler ignores
  the settings that we send on connecting; where it does not, its refusal tells.
- Two clients of it that were answered by the same process while both were connected share sessions: the
  proof of transaction mode (or of statement mode, where BEGIN fails aloud). Session mode cannot be proved, but
  a pooler that is not busy hands out the process that was used last, and one that is busy mixes them; so
  a dozen looks without a proof are taken as session mode, by those who need a session and cannot do without.
  All others do what is right in both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from pipeline.db.statements import statement

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Base = asyncpg.Connection[asyncpg.Record]
else:
    Base = asyncpg.Connection

REFUSED = "unsupported startup parameter"
LOOKS = (0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1)  # by which of two; no rhythm, since a pooler may take turns


class OwnConnection(Base):
    """A connection of ours. pooled: its statements may be answered by one server process after another, so each
    use is wrapped in `transacted`. process_id: of the server process, where there is only one.
    """

    __slots__ = ("pooled", "process_id")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pooled = False
        self.process_id = 0


async def open_connection(
    dsn: str | None, settings: Mapping[str, str], *, expect_pooler: bool = False, **driver: Any
) -> OwnConnection:
    """Connect to a server, with these settings, or to a pooler, without them.

    expect_pooler: ask in the pooler's way first, since one answered before. driver: what asyncpg.connect takes.
    Raises the driver's errors.
    """
    refused = False
    if not expect_pooler:
        try:
            connection = await asyncpg.connect(
                dsn, server_settings=dict(settings), connection_class=OwnConnection, **driver
            )
        except asyncpg.ProtocolViolationError as error:
            if REFUSED not in str(error):
                raise
            refused = True
        else:
            if await _speaks_for_itself(connection):
                return connection
            await connection.close()
    connection = await asyncpg.connect(
        dsn,
        server_settings={"application_name": settings["application_name"]},
        statement_cache_size=0,
        connection_class=OwnConnection,
        **driver,
    )
    connection.pooled = not await _speaks_for_itself(connection) or refused
    if connection.pooled:
        # asyncpg turns jit off for the session while it looks up a type, and back on only if it was on
        caps = connection._server_caps  # type: ignore[attr-defined]  # it has no public switch for this
        connection._server_caps = caps._replace(jit=False)  # type: ignore[attr-defined]
        return connection
    await connection.close()
    return await open_connection(dsn, settings, **driver)


async def _speaks_for_itself(connection: OwnConnection) -> bool:
    """Whether the process that answers is the one that the client was told of on connecting."""
    told = connection.get_server_pid()
    try:
        # Without parameters it is one message, which no pooler can take apart; the number comes from the protocol.
        tag = await connection.execute(statement("admin/is_backend").replace("$1", str(int(told))))
    except BaseException:
        connection.terminate()
        raise
    connection.process_id = told
    return tag == "SELECT 1"


def is_pooled(connection: OwnConnection | PoolConnectionProxy[asyncpg.Record]) -> bool:
    """Whether a pooler answers this connection, which may come from one of our pools."""
    pooled: bool = connection.pooled  # type: ignore[union-attr]  # the proxy passes it on
    return pooled


@asynccontextmanager
async def transacted(
    connection: OwnConnection | PoolConnectionProxy[asyncpg.Record], settings: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Through a pooler one transaction, with these settings in it alone. On a server nothing: its session has
    them already, and each statement commits by itself.
    """
    if not is_pooled(connection):
        yield
        return
    async with connection.transaction(isolation="read_committed"):
        if settings:
            await configure(connection, settings, local=True)
        yield


async def configure(
    connection: OwnConnection | PoolConnectionProxy[asyncpg.Record], settings: Mapping[str, str], *, local: bool
) -> None:
    """Set these for the transaction or, not `local`, for the session."""
    await connection.execute(
        statement("admin/configure"), list(settings), [str(value) for value in settings.values()], local
    )


async def shares_sessions(one: OwnConnection, other: OwnConnection) -> bool:
    """Whether two connections to a pooler were seen to use each other's server processes; see above."""
    seen: tuple[set[int], set[int]] = (set(), set())
    for turn in LOOKS:
        connection = (one, other)[turn]
        async with connection.transaction():
            seen[turn].add(await connection.fetchval(statement("admin/backend")))
    return len(seen[0]) > 1 or len(seen[1]) > 1 or seen[0] == seen[1]
