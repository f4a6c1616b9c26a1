"""Judges whether a server, a role and a configuration can serve us.

Owns: the limits and the words. Knows nothing of how the facts were had: pipeline/db/checkup.py gathers them.

A fact that could not be had is None, and is told as unknown, never as fine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from pipeline.core.statement_source import StatementSource, shortcomings

OLDEST_SERVER = 140000
CLOCK_SECONDS = 1.0
CONNECTIONS_NEEDED = 10
QUEUE_USAGE = 0.5  # of the notification queue, which is 8 GB; some session reads nothing

Level = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the checkup. hint: what to do, empty where there is nothing to do."""

    level: Level
    subject: str
    detail: str
    hint: str = ""


class Server(msgspec.Struct, frozen=True):
    """What the server says of itself and of our role. owns_schema is None where the schema does not exist."""

    version: str
    version_num: int
    in_recovery: bool
    read_only: bool
    role_name: str
    database_name: str
    superuser: bool
    may_create_schema: bool
    owns_schema: bool | None
    has_event_trigger: bool
    statements_loaded: bool
    statements_version: str | None
    statements_offered: str | None
    statements_track: str | None
    query_ids: str | None
    reads_all: bool
    max_connections: int
    reserved_connections: int
    connections: int
    max_prepared_transactions: int
    queue_usage: float


class WatchedTable(msgspec.Struct, frozen=True):
    """A watched table. foreign_owner: who owns it, where that is not this role; only owners may mend triggers."""

    relation: str
    problem: str | None
    foreign_owner: str | None


class Failure(msgspec.Struct, frozen=True):
    """Something that could not be done while looking, and why."""

    message: str
    hint: str = ""


class Facts(msgspec.Struct, frozen=True):
    """All that was found. clock_seconds: server minus this host, round_trip_seconds its uncertainty.

    pending: files that a migration would run. listen: None when the notification came back. pooled: whether a
    pooler answers in the server's place. poll_only: why nothing can LISTEN, where that is so by design.
    """

    server: Server | Failure
    pooled: bool = False
    pending: tuple[str, ...] | Failure | None = None
    clock_seconds: float | None = None
    round_trip_seconds: float = 0.0
    listen: Failure | None = None
    listen_tried: bool = False
    poll_only: Failure | None = None
    watched: tuple[WatchedTable, ...] | Failure = ()


def judge(facts: Facts, *, two_phase: bool) -> list[Finding]:
    """The findings, in the order in which one would mend them. two_phase: the setting feed.two_phase."""
    server = facts.server
    if isinstance(server, Failure):
        return [Finding("problem", "connection", server.message, server.hint)]
    found = [
        Finding("ok", "connection", f"database {server.database_name} as role {server.role_name}"),
        *_pooler(facts.pooled),
        *_suitable(server),
        *_rights(server),
        _schema(facts.pending),
        *_watched(facts.watched, server.role_name),
        _clock(facts.clock_seconds, facts.round_trip_seconds),
        _listen(facts),
        _queue(server.queue_usage),
        _connections(server),
        _prepared(server.max_prepared_transactions, two_phase),
        *_statements(server),
        _sessions(server),
    ]
    return found


def worst(findings: list[Finding]) -> Level:
    """The gravest level among the findings."""
    levels: tuple[Level, ...] = ("problem", "warning")
    return next((level for level in levels if any(one.level == level for one in findings)), "ok")


def _suitable(server: Server) -> Iterator[Finding]:
    if server.version_num < OLDEST_SERVER:
        yield Finding(
            "problem",
            "version",
            f"Postgres {server.version}; pgreflex needs 14 or newer",
            "Upgrade the server, or name another one with --dsn.",
        )
    else:
        yield Finding("ok", "version", f"Postgres {server.version}")
    if server.in_recovery:
        yield Finding(
            "problem",
            "writes",
            "this server is a standby and accepts no writes",
            "Name the primary, or several hosts with target_session_attrs=read-write.",
        )
    elif server.read_only:
        yield Finding(
            "problem",
            "writes",
            f"transactions of role {server.role_name} are read-only here",
            f"alter role {server.role_name} set default_transaction_read_only = off",
        )
    else:
        yield Finding("ok", "writes", "accepted")


def _rights(server: Server) -> Iterator[Finding]:
    if server.owns_schema:
        yield Finding("ok", "rights", "this role owns the schema pipeline")
    elif server.owns_schema is False:
        yield Finding(
            "problem",
            "rights",
            f"role {server.role_name} does not own the schema pipeline",
            "Run pgreflex as the role that migrated, or grant that role to this one.\n"
            "If it only emits, enqueues and reads: "
            f"grant usage on schema pipeline to {server.role_name}",
        )
    elif server.may_create_schema:
        yield Finding("ok", "rights", "this role may create the schema pipeline")
    else:
        yield Finding(
            "problem",
            "rights",
            f"role {server.role_name} may not create a schema in {server.database_name}",
            f"grant create on database {server.database_name} to {server.role_name}",
        )
    if server.has_event_trigger:
        yield Finding("ok", "event triggers", "changes of watched tables' definitions are seen at once")
    elif server.superuser:
        yield Finding("ok", "event triggers", "this role may create them")
    else:
        yield Finding(
            "ok", "event triggers", "not for this role; watched tables are checked every few seconds instead"
        )


def _schema(pending: tuple[str, ...] | Failure | None) -> Finding:
    if pending is None:
        return Finding("warning", "schema", "unknown: it was not looked at")
    if isinstance(pending, Failure):
        return Finding("problem", "schema", pending.message, pending.hint)
    if pending:
        return Finding("problem", "schema", f"{len(pending)} migrations to run", "Run `pgreflex migrate`.")
    return Finding("ok", "schema", "up to date")


def _watched(watched: tuple[WatchedTable, ...] | Failure, role: str) -> Iterator[Finding]:
    if isinstance(watched, Failure):
        yield Finding("warning", "watched tables", f"unknown: {watched.message}", watched.hint)
        return
    for table in watched:
        if table.problem:
            yield Finding("warning", f"table {table.relation}", table.problem)
        if table.foreign_owner is not None:
            yield Finding(
                "warning",
                f"table {table.relation}",
                "this role does not own it, so it cannot mend its triggers",
                f"grant {table.foreign_owner} to {role}",
            )
    if not any(table.problem or table.foreign_owner for table in watched):
        yield Finding("ok", "watched tables", f"{len(watched)}")


def _clock(offset: float | None, uncertain: float) -> Finding:
    if offset is None:
        return Finding("warning", "clock", "unknown: the server was not asked")
    how = f"the server is {abs(offset):.3f} s {'ahead' if offset > 0 else 'behind'} (± {uncertain / 2:.3f} s)"
    if abs(offset) - uncertain / 2 > CLOCK_SECONDS:
        return Finding("warning", "clock", how, "Let both hosts keep time (NTP); ages shown are off by as much.")
    return Finding("ok", "clock", how)


def _pooler(pooled: bool) -> Iterator[Finding]:
    if pooled:
        yield Finding("ok", "pooler", "a pooler answers; each of our statements is a transaction there")


def _listen(facts: Facts) -> Finding:
    if facts.poll_only is not None:
        return Finding(
            "warning",
            "LISTEN",
            f"off: {facts.poll_only.message}; jobs run by polling, caches and consumers hear nothing",
            facts.poll_only.hint,
        )
    if facts.listen is not None:
        return Finding("problem", "LISTEN", facts.listen.message, facts.listen.hint)
    if not facts.listen_tried:
        return Finding("warning", "LISTEN", "unknown: it was not tried")
    return Finding("ok", "LISTEN", "a notification came back")


def _queue(usage: float) -> Finding:
    if usage > QUEUE_USAGE:
        return Finding(
            "warning",
            "notification queue",
            f"{usage:.0%} full; at 100 % every NOTIFY fails",
            "Look in pg_stat_activity for a session that listens and has a transaction open for long.",
        )
    return Finding("ok", "notification queue", f"{usage:.0%} full")


def _connections(server: Server) -> Finding:
    free = server.max_connections - server.reserved_connections - server.connections
    text = f"{max(free, 0)} of {server.max_connections} free"
    if free < CONNECTIONS_NEEDED:
        return Finding(
            "warning",
            "connections",
            f"{text}; one process takes up to {CONNECTIONS_NEEDED}",
            "Raise max_connections, or let applications share connections.",
        )
    return Finding("ok", "connections", text)


def _prepared(slots: int, two_phase: bool) -> Finding:
    if two_phase:
        return Finding("ok", "two-phase commit", "feed.two_phase is on: events are found by polling")
    if slots > 0:
        return Finding(
            "warning",
            "two-phase commit",
            f"max_prepared_transactions is {slots}; it can fail after writes to watched tables",
            "If applications use PREPARE TRANSACTION, set feed.two_phase = true; otherwise ignore this.",
        )
    return Finding("ok", "two-phase commit", "not in use on this server")


def _statements(server: Server) -> Iterator[Finding]:
    source = StatementSource(
        loaded=server.statements_loaded,
        version=server.statements_version,
        offered=server.statements_offered,
        track=server.statements_track,
        query_ids=server.query_ids,
        reads_all=server.reads_all,
        role_name=server.role_name,
    )
    found = shortcomings(source)
    for one in found:
        # nothing of ours needs it: who has not created it is not warned
        level: Level = "ok" if server.statements_version is None else "warning"
        yield Finding(level, "pg_stat_statements", one.detail, one.hint)
    if not found:
        yield Finding("ok", "pg_stat_statements", f"version {server.statements_version}")


def _sessions(server: Server) -> Finding:
    if server.reads_all:
        return Finding("ok", "sessions", "what all of them wait for is seen")
    return Finding(
        "warning",
        "sessions",
        f"role {server.role_name} sees its own only: not what those of others do and wait for",
        f"grant pg_read_all_stats to {server.role_name}",
    )
