"""Timing every query of SQLAlchemy's engines.

Owns: that the driver's connections of an engine are watched, and, for drivers that cannot be, its statements.
Imports SQLAlchemy, so nobody imports it who was not given something of it.

SQLAlchemy's own events tell neither BEGIN and COMMIT with their times nor the rows of a SELECT, and see one call
where the driver makes several. So where the driver is asyncpg or psycopg, each connection is watched as if it had
been handed in by itself, when the engine's pool opens or lends it. With any other driver, statements are reported
as the engine's events tell them: without the transaction's own statements and its whole time.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from pipeline.core.observer import Observer, error_name


class _Hooks:
    """What listens to one engine. watched: connections of the driver."""

    def __init__(self, observe: Observer) -> None:
        self.observe = observe
        self.listeners: list[tuple[str, Callable[..., Any]]] = []
        self.watched: WeakSet[Any] = WeakSet()
        self.unwatch: Callable[[Any], None] = lambda connection: None


_hooks: WeakKeyDictionary[Engine, _Hooks] = WeakKeyDictionary()


def instrument(target: Any, observe: Observer) -> bool:
    """Report every query of this Engine or AsyncEngine from now on; returns whether it does.

    Connections that are lent now are watched from their next use on. When something is not as expected, nothing is
    touched and `observe.refused` is told why. Once more does nothing more, but that reports go to the newest
    observer. Never raises.
    """
    try:
        engine = _engine(target)
        reason = None if engine is not None else f"a {type(target).__name__} is no engine"
        if engine is not None:
            _stop(engine)
            reason = _listen(engine, _Hooks(observe))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        observe.refused(f"SQLAlchemy {sqlalchemy.__version__}", reason)
    return reason is None


def uninstrument(target: Any) -> None:
    """Give back what `instrument` changed. Never raises for what was not instrumented."""
    engine = _engine(target)
    if engine is not None:
        _stop(engine)


def _engine(target: Any) -> Engine | None:
    engine = target.sync_engine if isinstance(target, AsyncEngine) else target
    return engine if isinstance(engine, Engine) else None


def _stop(engine: Engine) -> None:
    hooks = _hooks.pop(engine, None)
    if hooks is not None:
        for name, listener in hooks.listeners:
            event.remove(engine, name, listener)
        for connection in hooks.watched:
            hooks.unwatch(connection)


def _listen(engine: Engine, hooks: _Hooks) -> str | None:
    """Begin to listen; returns why not."""
    watch: Callable[[Any, Observer], str | None]
    if engine.dialect.driver == "asyncpg":
        from pipeline.db import watched_asyncpg  # noqa: PLC0415 - of the drivers only the one that is used

        reason, watch, hooks.unwatch = watched_asyncpg.misfit(), watched_asyncpg.watch, watched_asyncpg.unwatch
        hooks.listeners = _of_driver(hooks, watch)
    elif engine.dialect.driver in ("psycopg", "psycopg_async"):
        from pipeline.db import instrument_psycopg, watched_psycopg  # noqa: PLC0415

        reason, watch, hooks.unwatch = instrument_psycopg.misfit(), watched_psycopg.watch, watched_psycopg.unwatch
        hooks.listeners = _of_driver(hooks, watch)
    else:
        reason, hooks.listeners = None, _of_engine(hooks)
    if reason is None:
        for name, listener in hooks.listeners:
            event.listen(engine, name, listener)
        _hooks[engine] = hooks
    return reason


def _of_driver(
    hooks: _Hooks, watch: Callable[[Any, Observer], str | None]
) -> list[tuple[str, Callable[..., Any]]]:
    def seen(_connection: Any, record: Any, *_proxy: Any) -> None:
        try:
            connection = record.driver_connection
            reason = watch(connection, hooks.observe)
            hooks.watched.add(connection)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            hooks.observe.refused("a connection of an engine", reason)

    return [("connect", seen), ("checkout", seen)]


def _of_engine(hooks: _Hooks) -> list[tuple[str, Callable[..., Any]]]:
    """For drivers that are not known: a statement as the engine tells it."""

    def before(connection: Any, *_what: Any) -> None:
        connection.info["pgreflex_began"] = perf_counter()

    def after(connection: Any, cursor: Any, statement: str, *_what: Any) -> None:
        try:
            seconds = perf_counter() - connection.info["pgreflex_began"]
            rows = cursor.rowcount
            hooks.observe.query(statement, seconds, rows=rows if rows >= 0 else None, error=None)
        except Exception as fault:
            _fault(hooks, fault)

    def failed(context: Any) -> None:
        try:
            if context.connection is not None and context.statement is not None:
                seconds = perf_counter() - context.connection.info["pgreflex_began"]
                error = error_name(context.original_exception)
                hooks.observe.query(context.statement, seconds, rows=None, error=error)
        except Exception as fault:
            _fault(hooks, fault)

    return [("before_cursor_execute", before), ("after_cursor_execute", after), ("handle_error", failed)]


def _fault(hooks: _Hooks, fault: Exception) -> None:
    try:
        hooks.observe.failed(fault)
    except Exception:
        return
