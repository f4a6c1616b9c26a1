"""What can be said of a pool, and what holds when nothing is said.

Owns: the options, their defaults and their reasons. Knows nothing of how they are kept.
"""

from __future__ import annotations

import msgspec

from pipeline.errors import UsageError


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a pool; times are seconds.

    name: in reports, series and errors. min_size: connections that are kept open. max_size: at most so many.
    acquire_timeout: how long to wait for one; None: for ever. connect_timeout: how long to open one may take.
    idle_timeout: one that was not used for so long is closed, down to min_size; 0: never. check_after: one that
    was idle for longer is asked whether it still lives before it is used again. reset_timeout: how long to clean
    up a returned one may take; then it is closed. leak_after: one that is held for longer is warned of, once;
    None: never. close_timeout: how long `close` waits for those who hold one; None: for ever. max_queries: one
    that has run so many is replaced. statement_timeout, lock_timeout, idle_in_transaction_timeout: what the
    server ends by itself; None: whatever it is set to. Raises UsageError.
    """

    name: str = "main"
    min_size: int = 1
    max_size: int = 10
    acquire_timeout: float | None = 5.0
    connect_timeout: float = 30.0
    idle_timeout: float = 600.0
    check_after: float = 5.0
    reset_timeout: float = 5.0
    leak_after: float | None = 60.0
    close_timeout: float | None = 10.0
    max_queries: int = 50_000
    statement_timeout: float | None = None
    lock_timeout: float | None = None
    idle_in_transaction_timeout: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise UsageError(
                f'pool "{self.name}": min_size {self.min_size} and max_size {self.max_size} do not go together',
                hint="Give max_size of at least 1, and min_size from 0 up to max_size.",
            )
        if self.max_queries < 1:
            raise UsageError(f'pool "{self.name}": max_queries is at least 1', hint="Leave it out to have 50,000.")
        if not self.name or not self.name.isprintable():
            raise UsageError("the name of a pool is a word that can be printed", hint="Leave it out to have one.")
        for field in ("connect_timeout", "reset_timeout"):
            if not getattr(self, field) > 0:
                raise UsageError(f'pool "{self.name}": {field} is more than 0 seconds', hint="Leave it out.")

    def server_settings(self) -> dict[str, str]:
        """The timeouts as the server takes them, in milliseconds; 0, which means none there, is kept."""
        named = {
            "statement_timeout": self.statement_timeout,
            "lock_timeout": self.lock_timeout,
            "idle_in_transaction_session_timeout": self.idle_in_transaction_timeout,
        }
        return {name: str(round(value * 1000)) for name, value in named.items() if value is not None}
