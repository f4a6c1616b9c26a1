"""What an instrumented driver reports, and the small readings that all drivers share.

Owns: the interface between a driver that is watched and whoever counts, the row count in a command's tag, the
name of an error, and when a transaction began and ended. Must not know any driver, nor what becomes of a timing.

A report never carries an argument of a query or the message of an error: both may hold people's data.
"""

from __future__ import annotations

from typing import Any, Protocol

UNREADABLE = "<unparsable query>"  # in place of what is no text


class Observer(Protocol):
    """Takes reports, on any thread; none of its methods may raise or block."""

    def query(self, text: str, seconds: float, *, rows: int | None, error: str | None) -> None:
        """One query ended. text: as it was sent. rows: returned or changed; None where nobody can know.
        error: an SQLSTATE, or the name of the exception's class for what the server did not say.
        """

    def transaction(self, seconds: float, *, error: str | None) -> None:
        """One transaction ended, from before BEGIN until after COMMIT or ROLLBACK. error: as above, of the
        statement that it failed with; None when it was committed or rolled back on purpose.
        """

    def refused(self, what: str, reason: str) -> None:
        """Something could not be instrumented, and works on without."""

    def failed(self, fault: Exception) -> None:
        """A report could not be made: a mistake of ours, which the application must not notice."""


class Span:
    """When the transaction of one connection began, and what it failed with.

    began: a moment in seconds, 0 while there is none. query: the observer's own, which is called most.
    """

    __slots__ = ("_error", "_observe", "began", "query")

    def __init__(self, observe: Observer) -> None:
        self._error: str | None = None
        self.began = 0.0
        self.observe = observe

    @property
    def observe(self) -> Observer:
        """Who is told."""
        return self._observe

    @observe.setter
    def observe(self, observe: Observer) -> None:
        self._observe = observe
        self.query = observe.query

    def after(
        self, inside: bool, started: float, ended: float, *, error: str | None = None, committed: bool = False
    ) -> bool:
        """A statement ran from `started` until `ended`. inside: whether a transaction is open now. committed:
        it was a COMMIT that succeeded. Returns whether a transaction ended with it.
        """
        if inside and not self.began:
            self.began, self._error = started, None
        if not self.began:
            return False
        if error is not None:
            self._error = error
        if inside:
            return False
        began, self.began = self.began, 0.0
        self.observe.transaction(ended - began, error=None if committed else self._error)
        return True


def rows_of(tag: str | bytes | None) -> int | None:
    """The count in a command's tag: 5 for `INSERT 0 5` and `SELECT 5`, 0 for `BEGIN`; None without a tag."""
    if not tag:
        return None
    if not tag[-1:].isdigit():
        return 0
    return int(tag.split()[-1])


def error_name(error: BaseException) -> str:
    """The SQLSTATE of an error of the server, else the name of its class: `TimeoutError`, `CancelledError`."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # the latter is psycopg2's
    return state if isinstance(state, str) and len(state) == 5 else type(error).__name__


class Counted:
    """An iterable that knows how much of it was taken."""

    __slots__ = ("_items", "taken")

    def __init__(self, items: Any) -> None:
        self._items = items
        self.taken = 0

    @staticmethod
    def over(items: Any) -> Any:
        """The same, where it has a length or cannot be iterated, which is for the driver to say."""
        if isinstance(items, (list, tuple)):
            return items
        try:
            return Counted(iter(items))
        except BaseException:  # raised again when the driver tries the same
            return items

    @staticmethod
    def number(items: Any) -> int:
        """How many were taken of what `over` returned, when all were."""
        return items.taken if isinstance(items, Counted) else len(items)

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self.taken += 1
        return item
