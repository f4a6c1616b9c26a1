"""What keeps pg_stat_statements from telling all that it could, and what to do about it.

Owns: the limits and the words. Knows nothing of how the facts were had.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

OLDEST = (1, 9)  # comes with Postgres 14; older ones do not tell when their counters began


class StatementSource(msgspec.Struct, frozen=True):
    """pg_stat_statements as this role finds it in this database.

    version: None where the extension is not created; offered: None where the server has no files of it. track,
    query_ids: the settings pg_stat_statements.track and compute_query_id.
    """

    loaded: bool
    version: str | None
    offered: str | None
    track: str | None
    query_ids: str | None
    reads_all: bool
    role_name: str

    @property
    def readable(self) -> bool:
        """Whether there are counters to read."""
        return self.loaded and self.version is not None and numbers(self.version) >= OLDEST


class Shortcoming(msgspec.Struct, frozen=True):
    """One thing that is amiss. hint: what to do."""

    detail: str
    hint: str


def shortcomings(source: StatementSource) -> list[Shortcoming]:
    """All that is amiss, in the order in which one would mend it; nothing when all is well."""
    return list(_missing(source) if not source.readable else _restricted(source))


def _missing(source: StatementSource) -> Iterator[Shortcoming]:
    if not source.loaded:
        yield Shortcoming(
            "pg_stat_statements is not loaded, so the server counts no statements",
            "Add pg_stat_statements to shared_preload_libraries and restart the server."
            + ("" if source.offered else "\nIts files come with the package postgresql-contrib."),
        )
    if source.version is None:
        yield Shortcoming(
            "the extension pg_stat_statements is not created in this database",
            "create extension pg_stat_statements",
        )
    elif numbers(source.version) < OLDEST:
        yield Shortcoming(
            f"pg_stat_statements {source.version} does not tell when its counters began",
            "alter extension pg_stat_statements update",
        )


def _restricted(source: StatementSource) -> Iterator[Shortcoming]:
    if source.track == "none":
        yield Shortcoming(
            "pg_stat_statements.track is none, so nothing is counted",
            "alter system set pg_stat_statements.track = top; select pg_reload_conf()",
        )
    if source.query_ids == "off":
        yield Shortcoming(
            "compute_query_id is off, so nothing is counted",
            "alter system set compute_query_id = auto; select pg_reload_conf()",
        )
    if not source.reads_all:
        yield Shortcoming(
            f"role {source.role_name} sees its own statements only; those of others are hidden",
            f"grant pg_read_all_stats to {source.role_name}",
        )
    version = source.version or ""
    if source.offered is not None and numbers(version) < numbers(source.offered):
        yield Shortcoming(
            f"pg_stat_statements is of version {version}, the server offers {source.offered}",
            "alter extension pg_stat_statements update",
        )


def numbers(version: str) -> tuple[int, ...]:
    """`1.12` as (1, 12)."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
