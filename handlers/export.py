"""The task pgreflex.export: writes the rows of a query to a file.

Owns: who may export what, the way from the first batch to the finished file, what a retry goes on from. Knows no
SQL, no encoding and no system call.

Why it is closed by default: whoever may use the schema `pipeline` may enqueue, and a query that a job brings
would run with the daemon's rights, not with the caller's. So a job names an export that the program has declared;
queries of its own are accepted only where the configuration says so.

A retry starts anew, unless the rows are sorted by a unique column: then what is on disk is saved now and then
(bytes, checksum, the last row's value), and the next attempt cuts the file there and goes on behind that row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from handlers.export_files import LineWriter, PartFile, explained
from handlers.export_parquet import ParquetWriter, arrow
from pipeline.core.directives import Discard
from pipeline.core.export import Export, Request, Saved, check_last, named, request
from pipeline.core.export_format import Rows
from pipeline.core.job import Job
from pipeline.db.export import ExportStore, Source
from pipeline.errors import TaskError

T = TypeVar("T")
BATCH = 5_000
SAVE_SECONDS = 1.0  # each save waits for the disk


class Exported(msgspec.Struct, frozen=True):
    """The result. bytes, sha256: of the file as it lies there. snapshots: 1, and one more for each time that an
    attempt went on with the work of another: such a file shows no single moment of the database."""

    rows: int
    bytes: int
    sha256: str
    path: str
    seconds: float
    snapshots: int


class Writer(Protocol):
    """What turns rows into the file."""

    def begin(self) -> None: ...

    def write(self, rows: Rows) -> None: ...

    def end(self) -> None: ...

    def abandon(self) -> None: ...


class Exporter:
    """The task and what it may do.

    exports: what was declared, by name. directory: where files go, or None, and nothing is exported. queries:
    whether jobs may bring queries of their own. save_seconds: the least time between two saves.
    """

    def __init__(
        self,
        store: ExportStore,
        exports: Mapping[str, Export],
        *,
        directory: Path | None,
        queries: bool = False,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        self._store = store
        self._exports = exports
        self._directory = directory
        self._queries = queries
        self._save_seconds = save_seconds

    async def export(
        self,
        job: Job,
        path: str,
        name: str | None = None,
        *,
        query: str | None = None,
        table: str | None = None,
        params: Sequence[Any] = (),
        format: str | None = None,
        compression: str | None = None,
        order_by: str | None = None,
        batch: int = BATCH,
        spreadsheet_safe: bool = False,
    ) -> Exported:
        """Write the rows of a declared export, a query or a table to a file below jobs.export_dir.

        Raises Discard for what no retry can mend, TaskError, Busy, LeaseLost, DatabaseUnavailable.
        """
        began = time.monotonic()
        with discarding():
            directory = self._check(name, query, table)
            wanted = request(
                path,
                format=format,
                compression=compression,
                batch=batch,
                order_by=order_by,
                spreadsheet_safe=spreadsheet_safe,
            )
        chosen = Export("", query or "") if name is None else named(dict(self._exports), name)
        if wanted.order_by is None:
            wanted = msgspec.structs.replace(wanted, order_by=chosen.order_by)
        if wanted.format == "parquet":
            await to_the_end(arrow)
        with explained(path):
            file = await to_the_end(lambda: PartFile(directory, wanted.path))
        run = _Run(job, wanted, file, self._save_seconds)
        try:
            await run.write(self._store, chosen.query, table, params)
        except BaseException as error:
            await run.leave(error)
            raise
        finally:
            file.close()
        seconds = round(time.monotonic() - began, 3)
        return Exported(run.rows, file.bytes, file.digest(), path, seconds, run.snapshots)

    def _check(self, name: str | None, query: str | None, table: str | None) -> Path:
        given = [value for value in (name, query, table) if value is not None]
        if self._directory is None:
            raise TaskError(
                "this daemon exports nothing",
                hint="Name a directory on its machine as jobs.export_dir (PGREFLEX_JOBS_EXPORT_DIR).",
            )
        if len(given) != 1 or not str(given[0]).strip():
            raise TaskError("an export needs a name, a query or a table", hint="Give exactly one of the three.")
        if name is None and not self._queries:
            raise TaskError(
                "this daemon exports only what its program has declared",
                hint='Declare it: pipeline.export("orders", "select ..."), or set jobs.export_queries, which lets '
                "everybody who may enqueue read all that the daemon's role may read.",
            )
        return self._directory


class _Run:
    """One attempt. rows: in the file so far, those of earlier attempts included."""

    def __init__(self, job: Job, wanted: Request, file: PartFile, save_seconds: float) -> None:
        self.rows = 0
        self.snapshots = 1
        self._job = job
        self._wanted = wanted
        self._file = file
        self._save_seconds = save_seconds
        self._resumable = wanted.order_by is not None and wanted.format != "parquet"
        self._saved_at = time.monotonic()

    async def write(self, store: ExportStore, query: str | None, table: str | None, params: Sequence[Any]) -> None:
        """From the first row, or from where the last attempt has got to, to the finished file."""
        before = await self._before()
        while True:
            after = before.last if before else None
            async with store.open(
                query, params, table=table, order_by=self._wanted.order_by, after=after
            ) as source:
                if before is not None and before.columns != [column.name for column in source.columns]:
                    await self._anew("its columns have changed")
                    before = None
                    continue
                if before is not None:
                    self.rows, self.snapshots = before.rows, before.snapshots + 1
                    self._job.log(f"goes on behind row {self.rows:,}; the file shows {self.snapshots} moments")
                await self._batches(source, begin=before is None)
            break
        await self._blocking(self._file.publish)

    async def _before(self) -> Saved | None:
        """What an earlier attempt has saved, if it is on this machine's disk; the file is cut to it."""
        kept = await self._job.saved() if self._resumable else None
        try:
            saved = msgspec.convert(kept, Saved) if kept is not None else None
        except msgspec.ValidationError:
            saved = None
        if await self._blocking(lambda: self._file.go_on(saved)):
            return saved
        if saved is not None:
            await self._anew("what was saved is not on this disk")
        return None

    async def _anew(self, reason: str) -> None:
        self._job.log(f"starts anew: {reason}", "warning")
        await self._blocking(lambda: self._file.go_on(None))

    async def _batches(self, source: Source, *, begin: bool) -> None:
        writer = self._writer(source)
        if begin:
            await self._blocking(writer.begin)
        names = [column.name for column in source.columns]
        place = names.index(self._wanted.order_by) if self._wanted.order_by else None
        expected, last = self.rows + source.expected, None
        try:
            while rows := await source.fetch(self._wanted.batch):
                if place is not None:
                    last = check_last(rows, place, last, names[place])
                await self._blocking(partial(writer.write, rows))
                self.rows += len(rows)
                if self._resumable and time.monotonic() - self._saved_at >= self._save_seconds:
                    await self._save(names, str(last))
                guess = f"of about {expected:,} rows, by the planner's guess"
                await self._job.progress(self.rows, None, guess)
            await self._blocking(writer.end)
        except BaseException:
            writer.abandon()
            raise
        await self._job.progress(self.rows, self.rows, "all rows are written")

    def _writer(self, source: Source) -> Writer:
        if self._wanted.format == "parquet":
            return ParquetWriter(self._file, source.columns)
        return LineWriter(
            self._file,
            self._wanted.format,
            source.columns,
            zipped=self._wanted.gzip,
            spreadsheet_safe=self._wanted.spreadsheet_safe,
        )

    async def _save(self, columns: list[str], last: str) -> None:
        await self._blocking(self._file.sync)
        saved = Saved(columns, self.rows, self._file.bytes, self._file.digest(), last, self.snapshots)
        await self._job.save(msgspec.to_builtins(saved))
        self._saved_at = time.monotonic()

    async def leave(self, error: BaseException) -> None:
        """Keep the unfinished file if another attempt can go on with it."""
        over = isinstance(error, Exception) and self._job.last_attempt
        if over or not self._resumable:
            await self._blocking(self._file.discard)

    async def _blocking(self, call: Callable[[], T]) -> T:
        with explained("/".join(self._wanted.path)):
            return await to_the_end(call)


@contextmanager
def discarding() -> Iterator[None]:
    """What is wrong with the job itself fails it for good: a retry would say the same."""
    try:
        yield
    except TaskError as error:
        raise Discard(f"{error.message}. {error.hint}") from None


async def to_the_end(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread. When cancelled, wait for it all the same: it is using our file."""
    work = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
