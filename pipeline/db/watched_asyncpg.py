"""asyncpg's protocol with a clock.

Owns: where asyncpg is listened to, and what counts as one query there. Knows nothing of pools, nor of what becomes
of a report.

Whatever a connection sends passes through its protocol object: what its logger sees, and what it does not
(prepared statements, cursors, COPY, the statements of a transaction, its own look-ups of types). So a connection
is instrumented by giving that one object a subclass of its class, and restored by giving the class back. Nothing
else is touched: the connection, its callbacks, codecs and caches stay its own, and asyncpg's parts that are
written in C go on calling each other. It costs one more coroutine a query, about 1 us.

What one query is:
- The statement's execution; the time its text took to be parsed goes to the execution that follows. A text that
  cannot be parsed is one failed query. `executemany` is one query, with as many rows as it was given.
- A cursor, from the portal's opening until its end: the time spent in the database, the rows of all fetches.
- The reset with which a pool takes a connection back is none: nobody asked for it, and it would be half of all.
- A string of several statements, as one text; its rows are those of the last, since asyncpg tells no others.

This leans on asyncpg's inside, so `misfit` compares it with what was written against, before anything is touched.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from contextlib import suppress
from inspect import signature
from time import perf_counter
from typing import Any

from asyncpg.pool import PoolConnectionProxy
from asyncpg.protocol import protocol as driver

from pipeline.core.observer import UNREADABLE, Counted, Observer, Span, error_name, rows_of

Base: Any = driver.Protocol
SEAMS = {  # what is overridden, with the parameters that it must have
    "prepare": ["self", "stmt_name", "query", "timeout", "state", "ignore_custom_codec", "record_class"],
    "bind_execute": ["self", "state", "args", "portal_name", "limit", "return_extra", "timeout"],
    "bind_execute_many": ["self", "state", "args", "portal_name", "timeout", "return_rows"],
    "bind": ["self", "state", "args", "portal_name", "timeout"],
    "execute": ["self", "state", "portal_name", "limit", "return_extra", "timeout"],
    "close_portal": ["self", "portal_name", "timeout"],
    "query": ["self", "query", "timeout"],
    "copy_in": ["self", "copy_stmt", "reader", "data", "records", "record_stmt", "timeout"],
    "copy_out": ["self", "copy_stmt", "sink", "timeout"],
    "close": ["self", "timeout"],
    "abort": ["self"],
}
MOST_PARSED = 32  # texts that were parsed and not run yet, whose time is remembered
GIVEN_NAME = re.compile(r"__asyncpg_[a-z]+_[0-9a-f]+__")  # of a savepoint or portal, different each time
MOST_GIVEN = 120  # characters of a statement in which asyncpg may have put such a name


class _Watch(Span):
    """What is known of one connection. cursors: by portal, [text, seconds, rows]. reset: its pool's query."""

    __slots__ = ("cursors", "parsed", "reset")

    def __init__(self, observe: Observer, reset: str) -> None:
        super().__init__(observe)
        self.reset = reset
        self.parsed: dict[str, float] = {}
        self.cursors: dict[str, list[Any]] = {}


class WatchedProtocol(Base):  # type: ignore[misc]  # the driver's class, known at run time only
    """asyncpg's protocol with a clock. Every method does what its parent does, and reports."""

    _pgreflex: _Watch

    async def prepare(
        self,
        stmt_name: str,
        query: str,
        timeout: Any,
        *,
        state: Any = None,
        ignore_custom_codec: bool = False,
        record_class: Any,
    ) -> Any:
        started = perf_counter()
        try:
            prepared = await _prepare(
                self,
                stmt_name,
                query,
                timeout,
                state=state,
                ignore_custom_codec=ignore_custom_codec,
                record_class=record_class,
            )
        except BaseException as error:
            _failed(self, query, started, error)
            raise
        parsed = self._pgreflex.parsed
        if len(parsed) >= MOST_PARSED:
            parsed.clear()
        parsed[stmt_name] = perf_counter() - started
        return prepared

    async def bind_execute(
        self, state: Any, args: Any, portal_name: str, limit: int, return_extra: bool, timeout: Any
    ) -> Any:
        started = perf_counter()
        try:
            # with the extras comes the command's tag, the only count of rows of what returns none
            result = await _bind_execute(self, state, args, portal_name, limit, True, timeout)
        except BaseException as error:
            _failed(self, state.query, started, error, state.name)
            raise
        ended = perf_counter()
        try:
            watch = self._pgreflex
            records, tag, complete = result
            seconds = ended - started
            if watch.parsed:
                seconds += watch.parsed.pop(state.name, 0.0)
            if portal_name and not complete:
                watch.cursors[portal_name] = [state.query, seconds, len(records)]
            else:
                rows = len(records) or rows_of(tag)
                watch.query(state.query, seconds, rows=rows, error=None)
            if watch.began or self.is_in_transaction():
                _transacted(self, ended - seconds, ended, tag)
        except Exception as fault:
            _fault(self, fault)
        return result if return_extra else result[0]

    async def bind_execute_many(
        self, state: Any, args: Any, portal_name: str, timeout: Any, return_rows: bool
    ) -> Any:
        started = perf_counter()
        given = Counted.over(args)
        try:
            result = await _bind_execute_many(self, state, given, portal_name, timeout, return_rows)
        except BaseException as error:
            _failed(self, state.query, started, error, state.name)
            raise
        rows = len(result) if return_rows and result is not None else Counted.number(given)
        _done(self, state.query, started, rows, name=state.name)
        return result

    def query(self, query: str, timeout: Any) -> Awaitable[str]:
        if query == self._pgreflex.reset:
            reset: Awaitable[str] = _query(self, query, timeout)
            return reset
        return self._timed_query(query, timeout)

    async def _timed_query(self, query: str, timeout: Any) -> str:
        started = perf_counter()
        try:
            tag: str = await _query(self, query, timeout)
        except BaseException as error:
            _failed(self, query, started, error)
            raise
        ended = perf_counter()
        try:
            watch = self._pgreflex
            text = query
            if watch.began and len(text) <= MOST_GIVEN and "__asyncpg_" in text:
                cursor = watch.cursors.get(text.rsplit(" ", 1)[-1])
                if cursor is not None:  # MOVE, which is a part of the cursor's way
                    cursor[1] += ended - started
                    cursor[2] += rows_of(tag) or 0
                    return tag
                text = GIVEN_NAME.sub("given", text)
            watch.query(text, ended - started, rows=rows_of(tag), error=None)
            if watch.began or self.is_in_transaction():
                _transacted(self, started, ended, tag)
        except Exception as fault:
            _fault(self, fault)
        return tag

    async def copy_in(
        self, copy_stmt: str, reader: Any, data: Any, records: Any, record_stmt: Any, timeout: Any
    ) -> str:
        return await _copied(
            self, copy_stmt, _copy_in(self, copy_stmt, reader, data, records, record_stmt, timeout)
        )

    async def copy_out(self, copy_stmt: str, sink: Any, timeout: Any) -> str:
        return await _copied(self, copy_stmt, _copy_out(self, copy_stmt, sink, timeout))

    async def bind(self, state: Any, args: Any, portal_name: str, timeout: Any) -> Any:
        started = perf_counter()
        try:
            result = await _bind(self, state, args, portal_name, timeout)
        except BaseException as error:
            _failed(self, state.query, started, error, state.name)
            raise
        watch = self._pgreflex
        seconds = perf_counter() - started + watch.parsed.pop(state.name, 0.0)
        watch.cursors[portal_name] = [state.query, seconds, 0]
        return result

    async def execute(self, state: Any, portal_name: str, limit: int, return_extra: bool, timeout: Any) -> Any:
        started = perf_counter()
        try:
            result = await _execute(self, state, portal_name, limit, True, timeout)
        except BaseException as error:
            _left(self, portal_name, started, error_name(error))
            _failed(self, None, started, error)
            raise
        records, _, complete = result
        cursor = self._pgreflex.cursors.get(portal_name)
        if cursor is not None:
            cursor[2] += len(records)
            if complete:
                _left(self, portal_name, started)
            else:
                cursor[1] += perf_counter() - started
        return result if return_extra else records

    async def close_portal(self, portal_name: str, timeout: Any) -> None:
        started = perf_counter()
        try:
            await _close_portal(self, portal_name, timeout)
        except BaseException as error:
            _left(self, portal_name, started, error_name(error))
            _failed(self, None, started, error)
            raise
        _left(self, portal_name, started)

    async def close(self, timeout: Any) -> None:
        try:
            await _close(self, timeout)
        finally:
            _gone(self, "ConnectionClosed")

    def abort(self) -> None:
        _abort(self)
        _gone(self, "ConnectionClosed")


# Functions, not methods: a query that runs when the class is given back still ends here.


async def _copied(self: Any, text: str, copying: Awaitable[str]) -> str:
    started = perf_counter()
    try:
        tag = await copying
    except BaseException as error:
        _failed(self, text, started, error)
        raise
    _done(self, text, started, rows_of(tag))
    return tag


def _done(self: Any, text: str, started: float, rows: int | None, name: str | None = None) -> None:
    ended = perf_counter()
    try:
        watch = self._pgreflex
        started -= watch.parsed.pop(name, 0.0) if name is not None else 0.0
        watch.query(text, ended - started, rows=rows, error=None)
        _transacted(self, started, ended, None)
    except Exception as fault:
        _fault(self, fault)


def _failed(self: Any, text: Any, started: float, error: BaseException, name: str | None = None) -> None:
    ended = perf_counter()
    try:
        watch, told = self._pgreflex, error_name(error)
        started -= watch.parsed.pop(name, 0.0) if name is not None else 0.0
        if text is not None:
            text = text if isinstance(text, str) else UNREADABLE
            watch.query(text, ended - started, rows=None, error=told)
        if self.is_connected():
            _transacted(self, started, ended, None, told)
        else:
            _gone(self, told)
    except Exception as fault:
        _fault(self, fault)


def _transacted(
    self: Any, started: float, ended: float, tag: str | bytes | None, error: str | None = None
) -> None:
    watch = self._pgreflex
    committed = tag in ("COMMIT", b"COMMIT")
    if watch.after(self.is_in_transaction(), started, ended, error=error, committed=committed):
        for portal in list(watch.cursors):  # a portal lives no longer than its transaction
            _left(self, portal, None)


def _left(self: Any, portal: str, started: float | None, error: str | None = None) -> None:
    """A cursor came to its end; started: of what it did last."""
    try:
        cursor = self._pgreflex.cursors.pop(portal, None)
        if cursor is not None:
            text, seconds, rows = cursor
            seconds += perf_counter() - started if started is not None else 0.0
            self._pgreflex.query(text, seconds, rows=rows, error=error)
    except Exception as fault:
        _fault(self, fault)


def _gone(self: Any, error: str) -> None:
    """The connection is no more, and what was open on it neither."""
    try:
        for portal in list(self._pgreflex.cursors):
            _left(self, portal, None, error)
        self._pgreflex.after(False, 0.0, perf_counter(), error=error)
    except Exception as fault:
        _fault(self, fault)


def _fault(self: Any, fault: Exception) -> None:
    with suppress(Exception):  # whoever is told may fail as well, and the query must not
        self._pgreflex.observe.failed(fault)


_prepare, _bind_execute, _bind_execute_many = Base.prepare, Base.bind_execute, Base.bind_execute_many
_query, _copy_in, _copy_out = Base.query, Base.copy_in, Base.copy_out
_bind, _execute, _close_portal = Base.bind, Base.execute, Base.close_portal
_close, _abort = Base.close, Base.abort


def misfit() -> str | None:
    """What about this asyncpg is not what this module was written against; None when all is."""
    for name, parameters in SEAMS.items():
        found = getattr(Base, name, None)
        if found is None:
            return f"its protocol has no {name}"
        if list(signature(found).parameters) != parameters:
            return f"its protocol's {name} takes other arguments"
    for name in ("is_in_transaction", "is_connected"):
        if not callable(getattr(Base, name, None)):
            return f"its protocol has no {name}"
    return None


def watch(connection: Any, observe: Observer) -> str | None:
    """Instrument one connection; returns why not."""
    protocol = _protocol(connection)
    if protocol is None:
        return "the connection is closed"
    if type(protocol) is WatchedProtocol:
        if protocol._pgreflex.observe is not observe:
            protocol._pgreflex.observe = observe
        return None
    if type(protocol) is not Base:
        return f"its protocol is a {type(protocol).__name__}"
    protocol._pgreflex = _Watch(observe, connection.get_reset_query())
    protocol.__class__ = WatchedProtocol
    return None


def unwatch(connection: Any) -> None:
    protocol = _protocol(connection)
    if type(protocol) is WatchedProtocol:
        protocol.__class__ = Base


def _protocol(connection: Any) -> Any:
    if isinstance(connection, PoolConnectionProxy):
        connection = getattr(connection, "_con", None)
    return getattr(connection, "_protocol", None)
