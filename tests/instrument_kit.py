"""Listening to an instrumented driver, and the same calls on a plain one and on an instrumented one."""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import asyncpg
import pytest

from pipeline.core.fingerprint import fingerprint


class Heard(NamedTuple):
    text: str
    rows: int | None
    error: str | None
    seconds: float


class Listener:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.transactions: list[str | None] = []
        self.refusals: list[str] = []
        self.faults: list[Exception] = []
        self._lock = threading.Lock()

    def query(self, text: str, seconds: float, *, rows: int | None, error: str | None) -> None:
        with self._lock:
            self.heard.append(Heard(text, rows, error, seconds))

    def transaction(self, seconds: float, *, error: str | None) -> None:
        assert seconds >= 0
        self.transactions.append(error)

    def refused(self, what: str, reason: str) -> None:
        self.refusals.append(f"{what}: {reason}")

    def failed(self, fault: Exception) -> None:
        self.faults.append(fault)

    def take(self) -> list[tuple[str, int | None, str | None]]:
        """What was heard since the last time, as (text, rows, error)."""
        heard, self.heard = self.heard, []
        return [(one.text, one.rows, one.error) for one in heard]

    def forget(self) -> None:
        self.heard.clear()
        self.transactions.clear()


class Raising(Listener):
    """An observer that breaks every promise."""

    def query(self, *_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("the observer fails")

    def transaction(self, *_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("the observer fails")

    def failed(self, fault: Exception) -> None:
        super().failed(fault)
        raise RuntimeError("the observer fails again")


class Totals(NamedTuple):
    calls: int
    rows: int


def totals(heard: list[Heard]) -> dict[str, Totals]:
    """Successful calls and rows by fingerprint."""
    calls: Counter[str] = Counter()
    rows: dict[str, int] = defaultdict(int)
    for one in heard:
        if one.error is None:
            calls[group(one.text)] += 1
            rows[group(one.text)] += one.rows or 0
    return {text: Totals(calls[text], rows[text]) for text in calls}


def group(text: str) -> str:
    """What stands for the fingerprint of a text."""
    return fingerprint(text).text


class Tally:
    """A plain count of calls, to hold what was heard and what the server counted against."""

    def __init__(self) -> None:
        self.texts: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, text: str, rows: int | None, more: int = 0) -> None:
        """rows: None for a call that failed. more: how many calls the server saw of what is one to us."""
        self.texts[group(text)].update({"failed": 1} if rows is None else {"calls": 1, "rows": rows, "more": more})


async def agree(
    dsn: str, listener: Listener, run: Callable[[], Awaitable[Tally]], *, only: str = ""
) -> dict[str, Totals]:
    """Do `run` and hold what was heard of it against its own count and against pg_stat_statements.

    only: what the texts contain that the server's count is compared for. Another test may reset what the whole
    server has counted; then it is done again.
    """
    sql = await asyncpg.connect(dsn)
    try:
        if await sql.fetchval("select current_setting('pg_stat_statements.max', true)") is None:
            pytest.skip("this server has not loaded pg_stat_statements (shared_preload_libraries)")
        await sql.execute(
            "create extension if not exists pg_stat_statements; set pg_stat_statements.track = 'none'"
        )
        for _ in range(10):
            listener.forget()
            began = await sql.fetchval("select stats_reset from pg_stat_statements_info")
            await sql.execute(RESET)
            tally = await run()
            server = await server_totals(sql)
            if began == await sql.fetchval("select stats_reset from pg_stat_statements_info"):
                break
    finally:
        await sql.close()
    heard = totals(listener.heard)
    failed = Counter(group(one.text) for one in listener.heard if one.error)
    for text, counts in tally.texts.items():
        assert heard.get(text, Totals(0, 0)) == Totals(counts["calls"], counts["rows"]), text
        assert failed[text] == counts["failed"], text
    wanted = {
        text: total._replace(calls=total.calls + tally.texts[text]["more"])
        for text, total in heard.items()
        if only in text
    }
    assert wanted
    assert {text: server.get(text) for text in wanted} == wanted
    return heard


RESET = "select pg_stat_statements_reset(0, (select oid from pg_database where datname = current_database()), 0)"


async def server_totals(sql: asyncpg.Connection) -> dict[str, Totals]:
    """What pg_stat_statements counted in this database, by fingerprint."""
    found = await sql.fetch(
        "select query, sum(calls)::bigint as calls, sum(rows)::bigint as rows from pg_stat_statements"
        " where toplevel and dbid = (select oid from pg_database where datname = current_database())"
        " group by query"
    )
    summed: dict[str, Totals] = {}
    for query, calls, rows in found:
        held = summed.get(group(query), Totals(0, 0))
        summed[group(query)] = Totals(held.calls + calls, held.rows + rows)
    return summed


def normal(value: object) -> str:
    """A text to compare: without what differs from one connection to the next."""
    text = repr(value)
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"__asyncpg_([a-z]+)_[0-9a-f]+__", r"\1", text)
    return re.sub(r"\b(pid|process)[ =]\d+", r"\1", text)
