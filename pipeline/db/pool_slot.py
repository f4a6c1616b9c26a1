"""One connection of a pool, and what the one who borrowed it is given.

Owns: how a connection is lent, what is known of its borrower, and how it is noticed that the borrower has lost it.
Knows nothing of who gets it next.

What is lent is a stand-in for the connection, as asyncpg's own pool lends one. The pool refers to it weakly, so
when nobody else does any more, Python says so, and the connection comes back.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import weakref
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from pipeline.core.pool_report import IDLE, IN_TRANSACTION, RUNNING, Held, shown

if TYPE_CHECKING:
    Proxy = PoolConnectionProxy[asyncpg.Record]
    Task = asyncio.Task[Any]
else:
    Proxy = PoolConnectionProxy

Place = tuple[CodeType, int]  # a code and the offset in it, from which the line is found when somebody asks
LONGEST_PLACE = 3  # parts of a path
ASKING = (
    "fetch", "fetchrow", "fetchval", "fetchmany", "execute", "executemany", "prepare", "cursor", "copy_from_query",
)  # fmt: skip


class Lent(Proxy):
    """The stand-in. It notes the text of each query, for whoever asks what keeps the connection."""

    __slots__ = ("__weakref__",)
    _con: Any
    _holder: Any

    def __init__(self, slot: Slot, con: Any) -> None:
        # not the base's: that one would make the connection refer to its borrower
        self._con = con
        self._holder = slot


def _noting(name: str) -> Callable[..., Any]:
    method = getattr(asyncpg.Connection, name)

    def call(self: Any, *args: Any, **options: Any) -> Any:
        con = self._con
        if con is None:
            raise asyncpg.InterfaceError(
                f"cannot call Connection.{name}(): connection has been released back to the pool"
            )
        self._holder.asked = args[0] if args else next(iter(options.values()), "")
        return getattr(con, name)(*args, **options)

    functools.update_wrapper(call, method)
    if inspect.iscoroutinefunction(method) and sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(call)
    return call


for _name in ASKING:
    setattr(Lent, _name, _noting(_name))


class Slot:
    """A connection of the pool `_pool`. The names with an underscore are those that asyncpg asks a holder for.

    idle_since, lent_at: by time.monotonic(). generation: of the pool when it was opened. asked: the text that the
    borrower sent last. alive: it belongs to the pool still. told: its borrower was reported. ended_at: when it was
    found that the borrower's task is over; examined: whether the borrower can still use it was looked into. base:
    the fewest references that the connection has had when it was lent.
    """

    __slots__ = (
        "__weakref__", "_con", "_pool", "alive", "asked", "base", "count", "ended_at", "examined", "generation",
        "idle_since", "labels", "lent", "lent_at", "place", "task", "task_name", "told",
    )  # fmt: skip

    def __init__(self, con: Any, pool: Any, generation: int) -> None:
        self._con = con
        self._pool = pool
        self.lent: weakref.ref[Lent] | None = None
        self.generation = generation
        self.idle_since = 0.0
        self.alive = True
        self.count = 0
        self.base = sys.maxsize
        self.take_back()
        adopt(con, self)

    @property
    def _holder(self) -> Slot:
        return self

    def _release_on_close(self) -> None:
        """The pool hears of it as a termination listener, which every version of asyncpg has."""

    def take_back(self) -> None:
        """Whoever still has the stand-in, or a statement, cursor or transaction of it, can do nothing with it."""
        self._con._pool_release_ctr += 1
        lent = self.borrowed()
        if lent is not None:
            lent._con = None
        self.lent = None
        self.lent_at = 0.0
        self.place: Place | None = None
        self.task: weakref.ref[Task] | None = None
        self.task_name = ""
        self.labels: Mapping[str, object] = {}
        self.asked: str | None = None
        self.told = False
        self.ended_at: float | None = None
        self.examined = False

    def lend(self, place: Place | None, now: float, lost: Callable[[weakref.ref[Lent]], None]) -> Lent:
        """The stand-in for a new borrower. lost: called, in any thread, when it is gone without being returned."""
        self.base = min(self.base, sys.getrefcount(self._con))
        con = self._con
        lent = Lent(self, con)
        self.lent = weakref.ref(lent, lost)
        self.lent_at = now
        self.place = place
        self.count = con._protocol.queries_count
        task = asyncio.current_task()
        if task is not None:
            self.task = weakref.ref(task)
            self.task_name = task.get_name()
        return lent

    def borrowed(self) -> Lent | None:
        """The stand-in, if it is lent and somebody still has it."""
        return None if self.lent is None else self.lent()

    def is_lost(self) -> bool:
        """Whether it is lent, and neither the stand-in nor anything else that can use it is left.

        A query that runs, a prepared statement, a cursor and a transaction refer to the connection, not to the
        stand-in; all of them outlive it where the code drops it too early.
        """
        return self.lent is not None and self.lent() is None and sys.getrefcount(self._con) <= self.base

    def is_used(self) -> bool:
        """Whether anything was asked of the connection since it was lent, so that it has to be reset."""
        return self.asked is not None or self._con._protocol.queries_count != self.count

    def is_connected(self) -> bool:
        return not self._con.is_closed()

    def wants_primary(self) -> bool:
        """Whether the address asked for a server that takes writes."""
        return self._con._params.target_session_attrs in ("read-write", "primary")

    def is_idle(self) -> bool:
        return self.lent is None

    def ended(self) -> bool:
        """Whether the task that borrowed it is over."""
        if self.task is None:
            return False
        task = self.task()
        return task is None or task.done()

    def is_busy(self) -> bool:
        """Whether a query is running.

        asyncpg keeps the future of the query in progress to itself; the garbage collector may see it. So a query
        costs nothing more for this question, which is asked only when somebody is told who holds what.
        """
        return any(
            isinstance(one, asyncio.Future) and not one.done() for one in gc.get_referents(self._con._protocol)
        )

    def has_listeners(self) -> bool:
        return bool(self._con._listeners or self._con._log_listeners)

    def held(self, now: float) -> Held:
        """What is known of the borrower."""
        alive = self.is_connected()
        busy = alive and self.is_busy()
        return Held(
            seconds=round(now - self.lent_at, 3),
            task=self.task_name or "no task",
            place=where(self.place),
            state=RUNNING if busy else IN_TRANSACTION if alive and self._con.is_in_transaction() else IDLE,
            query=None if self.asked is None else shown(self.asked),
            labels={name: str(value) for name, value in self.labels.items()},
            pid=self._con.get_server_pid() if alive else None,
            ended=self.ended(),
        )

    def is_forsaken(self) -> bool:
        """Whether nothing but the frames of code that has ended refers to the stand-in, so that nobody can use it.

        Such frames are kept by the traceback of a task that failed. Whatever else refers to it, also a variable of
        a running function, which the collector does not see, makes the numbers differ, and the answer no.
        """
        lent = self.borrowed()
        if lent is None:
            return False
        referrers = gc.get_referrers(lent)
        # the variable and the argument of getrefcount are the two
        return sys.getrefcount(lent) - 2 == len(referrers) and all(isinstance(r, FrameType) for r in referrers)


class _Adopted:
    """What a connection does otherwise while it belongs to a pool."""

    __slots__ = ()

    def _unwrap(self) -> Any:
        """What callbacks of listeners are given: the borrower's stand-in."""
        slot = self._proxy  # type: ignore[attr-defined]
        lent = None if slot is None else slot.borrowed()
        return self if lent is None else lent


_adopted: dict[type, type] = {}


def adopt(con: Any, slot: Slot) -> None:
    """Make the connection know its slot, as asyncpg's parts that act on all connections of a pool expect it.

    Its class is changed, since the class may be the application's own and its connect function may ignore ours.
    """
    plain = type(con)
    if plain not in _adopted:
        _adopted[plain] = type(
            plain.__name__, (_Adopted, plain), {"__slots__": (), "__module__": plain.__module__}
        )
    con.__class__ = _adopted[plain]
    con._proxy = slot


def caller(skip: frozenset[str]) -> Place | None:
    """Where the call came from: the nearest frame outside the files of `skip`. It takes about 0.2 us, since the
    line is not looked up.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in skip:
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def where(place: Place | None) -> str:
    """file:line and the function, with the last parts of the path only."""
    if place is None:
        return "unknown"
    code, offset = place
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
    path = "/".join(code.co_filename.replace("\\", "/").split("/")[-LONGEST_PLACE:])
    return f"{path}:{line or code.co_firstlineno} in {code.co_qualname}"
