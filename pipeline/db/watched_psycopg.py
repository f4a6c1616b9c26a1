"""psycopg's connections and cursors with a clock.

Owns: where psycopg 3 is listened to, sync and async alike, and what counts as one query there. Knows nothing of
pools, nor of what becomes of a report.

psycopg does its work in generators that its blocking and its asyncio classes share; these are overridden in
subclasses. A connection gets such a subclass in place of its class, and makes its cursors of such subclasses.
Nothing of what they do changes; a cursor that a program makes without the connection's help is not watched.

What one query is:
- An `execute`, from after an implicit BEGIN, which is a statement of its own. Several statements in one string are
  one query with the rows of all, and so is `executemany`.
- In a pipeline: from its sending until its result was read, whenever that is. What psycopg itself puts into a
  pipeline (BEGIN, COMMIT) has no result that it reads, and is not reported there; the transaction is.
- A server-side cursor, and `stream`: from its opening until its end, the time spent in the database only.
- COPY, from its start until the block ends, with what the program does in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any

import psycopg
from psycopg._queries import PostgresClientQuery  # what binds arguments into the text

from pipeline.core.observer import UNREADABLE, Observer
from pipeline.db.psycopg_reports import (
    CANCELED,
    Open,
    Watch,
    arrived,
    begin,
    canceled_by,
    declared,
    drop,
    gone,
    many,
    more,
    one,
    over,
    quietly,
    report,
    rows_in,
    send,
)

Gen = Generator[Any, Any, Any]
_made: dict[type, type] = {}


def subclass(given: type) -> type:
    """The watched subclass of a class of psycopg's or of the user's, with the same name."""
    if hasattr(given, "_pgreflex_before"):
        return given
    found = _made.get(given)
    if found is None:
        if issubclass(given, psycopg.BaseConnection):
            asynchronous = issubclass(given, psycopg.AsyncConnection)
            made = (_async_connection if asynchronous else _sync_connection)(_connection(given))
        else:
            made = (
                _server_cursor(_cursor(given))
                if issubclass(given, (psycopg.ServerCursor, psycopg.AsyncServerCursor))
                else _cursor(given)
            )
            made = (_async_cursor if issubclass(given, psycopg.AsyncCursor) else _sync_cursor)(made)
        made.__name__, made.__qualname__, made.__module__ = given.__name__, given.__qualname__, given.__module__
        made._pgreflex_before = given
        found = _made.setdefault(given, made)
    return found


def watch(connection: Any, observe: Observer) -> None:
    """Report what this connection does from now on. Raises TypeError when it is of another shape."""
    if hasattr(type(connection), "_pgreflex_before"):
        connection._pgreflex.observe = observe
        return
    if not {"cursor_factory", "server_cursor_factory"} <= vars(connection).keys():
        raise TypeError("a connection keeps the classes of its cursors elsewhere")
    connection._pgreflex = Watch(observe)
    connection.__class__ = subclass(type(connection))


def unwatch(connection: Any) -> None:
    """Give the connection its class back; cursors that are open are reported until they are closed."""
    before = getattr(type(connection), "_pgreflex_before", None)
    if before is not None:
        connection.__class__ = before


def _factory(connection: Any, name: str) -> Any:
    """What makes the cursors of a watched connection: the user's class or psycopg's, watched."""
    factory = vars(connection)[name]
    if not isinstance(factory, type):
        connection._pgreflex.observe.refused("a cursor factory of psycopg", "it is no class")
        return factory
    return subclass(factory)


def _connection(given: Any) -> Any:
    class Connection(given):  # type: ignore[misc]  # a class that is known at run time only
        __slots__ = ()

        @property
        def cursor_factory(self: Any) -> Any:
            return _factory(self, "cursor_factory")

        @cursor_factory.setter
        def cursor_factory(self: Any, factory: Any) -> None:
            vars(self)["cursor_factory"] = factory

        @property
        def server_cursor_factory(self: Any) -> Any:
            return _factory(self, "server_cursor_factory")

        @server_cursor_factory.setter
        def server_cursor_factory(self: Any, factory: Any) -> None:
            vars(self)["server_cursor_factory"] = factory

        def _exec_command(self: Any, command: Any, *args: Any, **kwargs: Any) -> Gen:
            execution = super()._exec_command(command, *args, **kwargs)
            if self._pipeline or self._pgreflex.quiet:
                return (yield from execution)
            started = perf_counter()
            try:
                result = yield from execution
            except BaseException as error:
                report(self, command, started, None, error)
                raise
            report(self, command, started, 0 if result is None else result.command_tuples or 0)
            return result

    return Connection


def _sync_connection(given: Any) -> Any:
    class SyncConnection(given):  # type: ignore[misc]  # a class that is known at run time only
        __slots__ = ()

        def close(self: Any) -> None:
            super().close()
            gone(self)

    return SyncConnection


def _async_connection(given: Any) -> Any:
    class AsyncConnection(given):  # type: ignore[misc]  # a class that is known at run time only
        __slots__ = ()

        async def close(self: Any) -> None:
            await super().close()
            gone(self)

        async def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().wait(*args, **kwargs)
            except asyncio.CancelledError:
                canceled_by(self, "CancelledError")
                raise
            finally:
                if self._pgreflex.canceled is not None:
                    canceled_by(self, CANCELED)

    return AsyncConnection


def _cursor(given: Any) -> Any:
    class Cursor(given):  # type: ignore[misc]  # a class that is known at run time only
        _pgreflex_started = 0.0
        _pgreflex_text: Any = UNREADABLE
        _pgreflex_open: Open | None = None  # a server-side cursor or stream
        _pgreflex_sent: list[Open] | tuple[()] = ()  # into a pipeline

        def _start_query(self: Any, query: Any = None) -> Gen:
            yield from super()._start_query(query)
            self._pgreflex_started = perf_counter()

        def _convert_query(self: Any, query: Any, params: Any = None) -> Any:
            converted = super()._convert_query(query, params)
            self._pgreflex_text = query if isinstance(converted, PostgresClientQuery) else converted.query
            if self._pgreflex_sent:
                self._pgreflex_sent[-1].text = self._pgreflex_text
            return converted

        def _execute_gen(self: Any, query: Any, *args: Any, **kwargs: Any) -> Gen:
            begin(self, query)
            sent = send(self, 1) if self._conn._pipeline else None  # its text is another once it was converted
            try:
                yield from super()._execute_gen(query, *args, **kwargs)
            except BaseException as error:
                # what raises in a pipeline may be another's result; this one's comes if it was put into the queue
                if sent is None or (sent.text is query and not sent.arrived):
                    drop(self, sent)
                    report(self._conn, self._pgreflex_text, self._pgreflex_started, None, error)
                raise
            if sent is None:
                report(self._conn, self._pgreflex_text, self._pgreflex_started, rows_in(self))

        def _check_results(self: Any, results: Any) -> None:
            try:
                super()._check_results(results)
            except BaseException as error:
                arrived(self, (), error)
                raise

        def _set_results(self: Any, results: Any) -> None:
            super()._set_results(results)
            arrived(self, results)

        def _stream_send_gen(self: Any, query: Any, *args: Any, **kwargs: Any) -> Gen:
            begin(self, query)
            try:
                yield from super()._stream_send_gen(query, *args, **kwargs)
            except BaseException as error:
                report(self._conn, self._pgreflex_text, self._pgreflex_started, None, error)
                raise
            self._pgreflex_open = Open(self._pgreflex_text, self._pgreflex_started)
            self._pgreflex_open.seconds = perf_counter() - self._pgreflex_started

        def _stream_fetchone_gen(self: Any, first: bool) -> Gen:
            started = perf_counter()
            try:
                result = yield from super()._stream_fetchone_gen(first)
            except BaseException as error:
                more(self, started, 0)
                over(self, error)
                raise
            more(self, started, 0 if result is None else result.ntuples)
            if result is None:
                over(self)
            return result

        def _close(self: Any) -> None:
            super()._close()
            over(self)

    return Cursor


def _server_cursor(given: Any) -> Any:
    class ServerCursor(given):  # type: ignore[misc]  # a class that is known at run time only
        def _declare_gen(self: Any, query: Any, *args: Any, **kwargs: Any) -> Gen:
            begin(self, query)
            try:
                yield from super()._declare_gen(query, *args, **kwargs)
            except BaseException as error:
                report(self._conn, declared(self._pgreflex_text), self._pgreflex_started, None, error)
                raise
            self._pgreflex_open = Open(declared(self._pgreflex_text), self._pgreflex_started)
            self._pgreflex_open.seconds = perf_counter() - self._pgreflex_started

        def _fetch_gen(self: Any, num: int | None) -> Gen:
            rows = yield from quietly(self, super()._fetch_gen(num))
            more(self, None, len(rows))
            return rows

        def _scroll_gen(self: Any, *args: Any) -> Gen:
            yield from quietly(self, super()._scroll_gen(*args))

        def _close_gen(self: Any) -> Gen:
            yield from quietly(self, super()._close_gen())
            over(self)

    return ServerCursor


def _sync_cursor(given: Any) -> Any:
    class SyncCursor(given):  # type: ignore[misc]  # a class that is known at run time only
        def executemany(self: Any, query: Any, params_seq: Any, *args: Any, **kwargs: Any) -> None:
            with many(self, query, params_seq) as items:
                super().executemany(query, items, *args, **kwargs)

        @contextmanager
        def copy(self: Any, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            with one(self, statement), super().copy(statement, *args, **kwargs) as copy:
                yield copy

    return SyncCursor


def _async_cursor(given: Any) -> Any:
    class AsyncCursor(given):  # type: ignore[misc]  # a class that is known at run time only
        async def executemany(self: Any, query: Any, params_seq: Any, *args: Any, **kwargs: Any) -> None:
            with many(self, query, params_seq) as items:
                await super().executemany(query, items, *args, **kwargs)

        @asynccontextmanager
        async def copy(self: Any, statement: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with one(self, statement):
                async with super().copy(statement, *args, **kwargs) as copy:
                    yield copy

    return AsyncCursor
