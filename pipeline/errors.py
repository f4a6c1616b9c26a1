"""The one error tree.

Owns: every error that reaches a person. Knows nothing about where it is shown.

Each class carries a `code` that is the same everywhere: the tag on the command line, the suffix of the HTTP
problem type, and the heading in docs/errors.md. The message says what happened and why; the hint says what to
do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pipeline.core.bulk import RowFailure
    from pipeline.core.pool_report import Held


class PgreflexError(Exception):
    """Something pgreflex could not do.

    message: what happened and why, one sentence, without secrets.
    hint: what to do next; the class's own hint serves where none is given.
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint


class UsageError(PgreflexError):
    """A command, an argument or a call that cannot be meant."""

    code = "usage"
    exit_status = 2


class NotCacheable(UsageError):
    """A query whose rows cannot be proved to depend on tags alone; the message says why."""

    code = "not-cacheable"


class ConfigError(PgreflexError):
    """A configuration that cannot be used; names the key and its source."""

    code = "config"
    exit_status = 78
    default_hint = "Run `pgreflex check` to see every setting and where it comes from."


class DatabaseUnavailable(PgreflexError):
    """No server answered, or it stopped answering."""

    code = "database-unavailable"
    exit_status = 69
    default_hint = "Check that Postgres is running and that the address is right."


class LoginFailed(DatabaseUnavailable):
    """The server answered and refused the user, the password or the database."""

    code = "login-failed"
    default_hint = "Check the user, the password and pg_hba.conf."


class ServerNotSuitable(PgreflexError):
    """The server is too old, a standby, or lacks something that pgreflex needs."""

    code = "server-not-suitable"


class TransactionPooler(ServerNotSuitable):
    """A pooler in transaction mode answered where a session that stays is needed."""

    code = "transaction-pooler"
    default_hint = "Set listen_dsn to the server itself, or to a pooler in session mode."


class PermissionMissing(PgreflexError):
    """The role may not do what was asked."""

    code = "permission-missing"
    default_hint = "Run `pgreflex check` to see which rights are missing."


class NotInstalled(PgreflexError):
    """The schema `pipeline` is missing, or older or newer than this program."""

    code = "not-installed"
    default_hint = "Run `pgreflex migrate`."


class NotWatchable(PgreflexError):
    """A relation, or a column of one, that cannot be watched."""

    code = "not-watchable"


class Busy(PgreflexError):
    """Something could not be had in time: a lock, a port, a data directory in use."""

    code = "busy"


class QueryFailed(PgreflexError):
    """The server refused a statement of ours; carries its message and SQLSTATE."""

    code = "query-failed"

    def __init__(self, message: str, *, sqlstate: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


class DaemonUnreachable(PgreflexError):
    """No pgreflex answered where one was expected to listen."""

    code = "daemon-unreachable"
    default_hint = "Start one with `pgreflex run`."


class EmbeddedServerError(PgreflexError):
    """The embedded Postgres could not be set up, started or stopped."""

    code = "embedded-server"


class TaskError(PgreflexError):
    """A task module, a task name or a task's arguments that cannot be used."""

    code = "task"


class KeyMissing(PgreflexError):
    """Arguments that were encrypted with a key which this process does not have."""

    code = "key-missing"
    default_hint = "Add that key to jobs.encryption_keys of every process that runs jobs."


class LeaseLost(PgreflexError):
    """A job that this worker may no longer end: it was cancelled, or given to another worker."""

    code = "lease-lost"
    default_hint = "Let the task end; whatever it does in the job's transaction is rolled back."


class JobFailed(PgreflexError):
    """A job whose result somebody waits for has none. state: failed, cancelled or expired."""

    code = "job-failed"
    default_hint = "See `pgreflex jobs show ID` for its errors and its log."

    def __init__(self, message: str, state: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.state = state


class RowsRefused(PgreflexError):
    """A bulk write of which some rows could not be written, so that none was. failures: these rows."""

    code = "rows-refused"
    default_hint = "Mend these rows, or give keep_others=True to write the others."

    def __init__(self, failures: Sequence[RowFailure], *, hint: str | None = None) -> None:
        first = failures[0]
        super().__init__(
            f"{len(failures)} rows were refused and nothing was written; row {first.index}: {first.reason}",
            hint=hint,
        )
        self.failures = tuple(failures)


class PoolExhausted(PgreflexError, TimeoutError):
    """No connection of a pool came free in time. holders: who has them, the longest first.

    It is a TimeoutError as well, which is what asyncpg's pool raises.
    """

    code = "pool-exhausted"
    exit_status = 75
    default_hint = (
        "Hold connections for a shorter time: give them back before other work is awaited. Or raise max_size."
    )

    def __init__(self, message: str, holders: Sequence[Held] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.holders = tuple(holders)


class PoolUnreachable(DatabaseUnavailable, TimeoutError):
    """No connection of a pool came free in time, because none could be opened; it is a TimeoutError as well."""


class PoolClosed(PgreflexError):
    """A connection was asked of a pool that is closed, or about to be."""

    code = "pool-closed"
    exit_status = 75
    default_hint = "Ask for connections before the pool is closed: stop taking work first, then close the pool."


class PoolTooLarge(PgreflexError):
    """A pool that may open more connections than its server has for it."""

    code = "pool-too-large"
    exit_status = 78
    default_hint = "Lower max_size of the pool, or raise max_connections of the server."
