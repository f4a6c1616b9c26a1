"""Reports of what psycopg's cursors do.

Owns: what is known of a connection and of a query that is not over, and how it is told. Must not know which
methods of psycopg are overridden, nor what becomes of a report. Nothing here raises for a mistake of ours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any

import psycopg

from pipeline.core.observer import UNREADABLE, Counted, Observer, Span, error_name

IDLE, INTRANS, INERROR = (
    psycopg.pq.TransactionStatus.IDLE,
    psycopg.pq.TransactionStatus.INTRANS,
    psycopg.pq.TransactionStatus.INERROR,
)
CANCELED = "57014"
Gen = Generator[Any, Any, Any]


class Watch(Span):
    """What is known of one connection. quiet: what it sends is part of a query that is reported. canceled: a query
    that the server was asked to cancel, (text, seconds), until it is known who asked.
    """

    __slots__ = ("canceled", "quiet")

    def __init__(self, observe: Observer) -> None:
        super().__init__(observe)
        self.quiet = False
        self.canceled: tuple[Any, float] | None = None


class Open:
    """A query that is not over. awaited: how many results are still to come, once that is known."""

    __slots__ = ("arrived", "awaited", "error", "rows", "seconds", "started", "text")

    def __init__(self, text: Any, started: float, awaited: int | None = 1) -> None:
        self.text = text
        self.started = started
        self.awaited = awaited
        self.seconds = 0.0
        self.arrived = self.rows = 0
        self.error: str | None = None


def begin(cursor: Any, query: Any) -> None:
    cursor._pgreflex_text = query
    cursor._pgreflex_started = perf_counter()


def send(cursor: Any, awaited: int | None) -> Open:
    sent = Open(cursor._pgreflex_text, perf_counter(), awaited)
    cursor._pgreflex_sent = [*cursor._pgreflex_sent, sent]
    return sent


def drop(cursor: Any, sent: Open | None) -> None:
    cursor._pgreflex_sent = [one for one in cursor._pgreflex_sent if one is not sent]


def arrived(cursor: Any, results: Any, error: BaseException | None = None) -> None:
    """A result came out of the pipeline, for the first query of this cursor that waits."""
    if not cursor._pgreflex_sent:
        return
    sent = cursor._pgreflex_sent[0]
    sent.arrived += 1
    with suppress(Exception):
        sent.rows += rows_of_results(results)
    if error is not None and sent.error is None:
        sent.error = error_name(error)
    _settled(cursor, sent)


def _settled(cursor: Any, sent: Open) -> None:
    if sent.arrived != sent.awaited:
        return
    drop(cursor, sent)
    report(cursor._conn, sent.text, sent.started, None if sent.error else sent.rows, sent.error)


@contextmanager
def many(cursor: Any, query: Any, params_seq: Any) -> Iterator[Any]:
    begin(cursor, query)
    if not cursor._conn._pipeline:
        with one(cursor, query):
            yield params_seq
        return
    given = Counted.over(params_seq)
    sent = send(cursor, None)
    try:
        yield given
    except BaseException as error:
        drop(cursor, sent)
        report(cursor._conn, cursor._pgreflex_text, sent.started, None, error)
        raise
    sent.awaited = Counted.number(given)
    _settled(cursor, sent)


@contextmanager
def one(cursor: Any, query: Any) -> Iterator[None]:
    begin(cursor, query)
    try:
        yield
    except BaseException as error:
        report(cursor._conn, cursor._pgreflex_text, cursor._pgreflex_started, None, error)
        raise
    report(cursor._conn, cursor._pgreflex_text, cursor._pgreflex_started, rows_in(cursor))


def quietly(cursor: Any, doing: Gen) -> Gen:
    """Something that belongs to the open server-side cursor."""
    started = perf_counter()
    watch = getattr(cursor._conn, "_pgreflex", None)
    try:
        if watch is not None:
            watch.quiet = True
        return (yield from doing)
    except BaseException as error:
        more(cursor, started, 0)
        over(cursor, error)
        started = 0.0
        raise
    finally:
        if watch is not None:
            watch.quiet = False
        if started:
            more(cursor, started, 0)


def more(cursor: Any, started: float | None, rows: int) -> None:
    opened = cursor._pgreflex_open
    if opened is not None:
        opened.rows += rows
        opened.seconds += 0.0 if started is None else perf_counter() - started


def over(cursor: Any, error: BaseException | None = None) -> None:
    opened, cursor._pgreflex_open = cursor._pgreflex_open, None
    if opened is not None:
        report(cursor._conn, opened.text, perf_counter() - opened.seconds, opened.rows, error)


def declared(text: Any) -> Any:
    """The query of a cursor, without DECLARE and the cursor's name."""
    return text.split(b" FOR ", 1)[-1].strip() if isinstance(text, bytes) else text


def rows_in(cursor: Any) -> int | None:
    try:
        results = cursor._results
        return rows_of_results(results) if len(results) > 1 else max(int(cursor._rowcount), 0)
    except Exception:
        return None


def rows_of_results(results: Any) -> int:
    return sum(result.command_tuples or 0 for result in results)


def report(
    connection: Any, text: Any, started: float, rows: int | None, error: BaseException | str | None = None
) -> None:
    ended = perf_counter()
    watch = getattr(connection, "_pgreflex", None)
    if watch is None:
        return
    try:
        told = error_name(error) if isinstance(error, BaseException) else error
        if told == CANCELED and isinstance(connection, psycopg.AsyncConnection):
            watch.canceled = (text, ended - started)
        else:
            watch.query(_text(connection, text), ended - started, rows=rows, error=told)
        status = connection.pgconn.transaction_status
        if status in (IDLE, INTRANS, INERROR):
            committed = told is None and text in (b"COMMIT", "COMMIT", b"commit", "commit")
            watch.after(status != IDLE, started, ended, error=told, committed=committed)
        elif connection.closed:
            watch.after(False, started, ended, error=told)
    except Exception as fault:
        _fault(watch, fault)


def canceled_by(connection: Any, error: str) -> None:
    """It is known now who had the query canceled."""
    watch = connection._pgreflex
    canceled, watch.canceled = watch.canceled, None
    if canceled is not None:
        try:
            watch.query(_text(connection, canceled[0]), canceled[1], rows=None, error=error)
        except Exception as fault:
            _fault(watch, fault)


def gone(connection: Any) -> None:
    watch = connection._pgreflex
    if connection.closed:
        try:
            watch.after(False, 0.0, perf_counter(), error="ConnectionClosed")
        except Exception as fault:
            _fault(watch, fault)


def _fault(watch: Watch, fault: Exception) -> None:
    with suppress(Exception):  # whoever is told may fail as well, and the query must not
        watch.observe.failed(fault)


def _text(connection: Any, text: Any) -> str:
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    if isinstance(text, str):
        return text
    try:
        return str(text.as_string(connection))  # of psycopg.sql
    except Exception:
        return UNREADABLE
