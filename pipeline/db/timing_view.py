"""Timings as people and programs look at them: the greatest series and queries, one series, its history.

Owns: the answers' shapes. Knows neither who looks nor how it is shown. Reads through the public functions
only, so that any role that may use the schema may look.

Durations are milliseconds, moments Unix seconds by the server's clock; a percentile of nothing is None, and every
percentile comes from merged digests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from pipeline.db.connection import Database, Record
from pipeline.db.job_view import CANCELED, LOOK_SECONDS
from pipeline.db.plans import PlanStore
from pipeline.errors import Busy, QueryFailed, UsageError

ORDERS = ("total", "calls", "errors", "mean", "max", "p50", "p95", "p99")
REFUSED = "22023"  # what our functions say of an argument that cannot be meant
UNWRITABLE = ("22021", "22P05")  # a zero byte in a text, and in JSON
OTHER = "other"
PATIENCE_SECONDS = LOOK_SECONDS + 5.0  # the server gives up first, and says so

Labels = Mapping[str, str] | None


class SeriesRow(msgspec.Struct, frozen=True, kw_only=True):
    """One series over a span. labels: None where the label sets of a name were merged. slow: how many took longer
    than the threshold of who timed them. rows: what queries returned or changed. share: of the time of all series
    that were looked at, 0 to 1. first_at: when it was first written. query: the text, where it is a query's."""

    series: str
    source: str
    name: str
    labels: dict[str, str] | None
    count: int
    total_ms: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    slow: int
    rows: int
    share: float | None
    first_at: float
    query: str | None = None

    @property
    def exactly(self) -> str:
        """How to ask for this one alone: its bare name would mean all label sets."""
        return f"{self.series}{{}}" if self.labels == {} else self.series


class QueryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One query over a span. query: its text with $n for literals; None where it is not known. The fingerprint
    `other` stands for all queries beyond the bound on series. share: of the time of all queries, 0 to 1."""

    fingerprint: str
    query: str | None
    calls: int
    total_ms: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    rows: int
    share: float | None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """A series over the last `over_seconds`."""

    over_seconds: float
    count: int
    total_ms: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    min_ms: float | None
    max_ms: float | None
    errors: int
    slow: int
    rows: int


class Bucket(msgspec.Struct, frozen=True):
    """How many timings took longer than `above_ms` and at most `upto_ms`; share: of all, 0 to 1."""

    above_ms: float
    upto_ms: float
    count: int
    share: float


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A series in the step that begins at `at`."""

    at: float
    count: int
    errors: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Known(msgspec.Struct, frozen=True):
    """A name that is timed. series: how many label sets it has. last_at: up to an hour behind."""

    name: str
    source: str
    series: int
    last_at: float


class TimingViews:
    """database: open. Spans and steps are seconds. Every method raises UsageError for an argument that cannot be
    meant, in the server's own words, and Busy when reading takes too long."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.plans = PlanStore(database)

    async def top_series(
        self, over: float, by: str = "total", most: int | None = 20, *, source: str | None = None,
        name: str | None = None, labels: Labels = None, per: str = "series",
    ) -> list[SeriesRow]:  # fmt: skip
        """The greatest series. per: `name` merges all label sets of a name."""
        with _meant():
            rows = await self._db.fetch(
                "timings/top_series", over, by, most, source, name, _json(labels), per, timeout=PATIENCE_SECONDS
            )
        return [_series(row) for row in rows]

    async def slow_queries(
        self, over: float, by: str = "total", most: int | None = 20, *, labels: Labels = None
    ) -> list[QueryRow]:
        """The queries that took the most."""
        with _meant():
            rows = await self._db.fetch(
                "timings/slow_queries", over, by, most, _json(labels), timeout=PATIENCE_SECONDS
            )
        return [QueryRow(**_in_ms(row)) for row in rows]

    async def totals(self, series: str, spans: Sequence[float], *, labels: Labels = None) -> list[Totals]:
        """One series over each of `spans`. A bare name means all its label sets, merged."""
        with _meant():
            rows = await self._db.fetch(
                "timings/totals", series, _json(labels), list(spans), timeout=PATIENCE_SECONDS
            )
        return [Totals(over_seconds=row["over"], **_in_ms(row, "over")) for row in rows]

    async def histogram(self, series: str, over: float, *, labels: Labels = None) -> list[Bucket]:
        """How a series is spread; nothing where there are no timings."""
        with _meant():
            rows = await self._db.fetch("timings/histogram", series, over, _json(labels), timeout=PATIENCE_SECONDS)
        return [Bucket(*row.values()) for row in rows]

    async def history(
        self, series: Sequence[tuple[str, Labels]], over: float, step: float | None = None
    ) -> list[list[Point]]:
        """For each of `series` its points, the oldest first; steps without timings have a count of 0."""
        with _meant():
            rows = await self._db.fetch(
                "timings/history", [one for one, _ in series], [_json(labels) for _, labels in series], over, step,
                timeout=PATIENCE_SECONDS,
            )  # fmt: skip
        found: list[list[Point]] = [[] for _ in series]
        for row in rows:
            found[row["place"] - 1].append(Point(**_in_ms(row, "place")))
        return found

    async def known(self) -> list[Known]:
        """Every name that is timed."""
        return [Known(**dict(row)) for row in await self._db.fetch("timings/known")]

    async def fingerprints(self, beginning: str) -> list[str]:
        """The fingerprints that begin so, at most ten."""
        return [row["fingerprint"] for row in await self._db.fetch("timings/fingerprints", beginning)]


_DURATIONS = ("total", "mean", "p50", "p95", "p99", "min", "max")


def _in_ms(row: Record, *without: str) -> dict[str, Any]:
    return {f"{key}_ms" if key in _DURATIONS else key: value for key, value in row.items() if key not in without}


def _series(row: Record) -> SeriesRow:
    labels = (
        None if row["labels"] is None else msgspec.json.decode(row["labels"], type=dict[str, str], strict=False)
    )
    return SeriesRow(**{**_in_ms(row), "labels": labels})


def _json(labels: Labels) -> str | None:
    return None if labels is None else msgspec.json.encode(labels).decode()


@contextmanager
def _meant() -> Iterator[None]:
    try:
        yield
    except QueryFailed as error:
        if error.sqlstate in UNWRITABLE:
            raise UsageError("a zero byte is in no name and no label", hint="Leave it out.") from error
        if error.sqlstate == CANCELED:
            raise Busy(
                "the timings could not be read in time, because there are too many of them",
                hint="Ask for a shorter span, for one name, or for an order that is no percentile.",
            ) from error
        if error.sqlstate != REFUSED:
            raise
        raise UsageError(error.message.partition(": ")[2] or error.message, hint=error.hint) from error
