"""What may be exported, and how a request for it is understood.

Owns: the declared export, the columns of a result, the request's options and their limits, the rules for a path.
Knows no database, no file and no encoding.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from pipeline.errors import TaskError

Format = Literal["csv", "ndjson", "parquet"]
Kind = Literal["int", "float", "bool", "numeric", "text", "bytes", "json", "date", "timestamp", "timestamptz"]

FORMATS: tuple[str, ...] = get_args(Format)
ENDINGS = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
GZIP = ".gz"
PART = ".part"
MOST_ROWS_A_BATCH = 100_000


class Export(msgspec.Struct, frozen=True):
    """A query that jobs may export by its name. order_by: a unique column that is never null, or None."""

    name: str
    query: str
    order_by: str | None = None


class Column(msgspec.Struct, frozen=True):
    """A column of the result. kind: how its values arrive; all but int, float, bool and bytes as text."""

    name: str
    kind: Kind


class Request(msgspec.Struct, frozen=True):
    """One export, understood. batch: rows that are read, written and held in memory at a time."""

    path: tuple[str, ...]
    format: Format
    gzip: bool
    batch: int
    order_by: str | None
    spreadsheet_safe: bool


class Saved(msgspec.Struct, frozen=True):
    """How far an export is on disk. last: the last row's value of order_by, as Postgres spells it.

    digest: SHA-256 of the file's first `bytes` bytes, in hex. snapshots: how many of the database went into it.
    """

    columns: list[str]
    rows: int
    bytes: int
    digest: str
    last: str
    snapshots: int


def request(
    path: str,
    *,
    format: str | None,
    compression: str | None,
    batch: int,
    order_by: str | None,
    spreadsheet_safe: bool,
) -> Request:
    """Check the options. Raises TaskError for those that cannot be meant."""
    parts = path_parts(path)
    chosen = format or _guess(parts[-1])
    if chosen not in FORMATS:
        raise TaskError(f"an export has no format {chosen!r}", hint=f"Use {', '.join(FORMATS)}.")
    if compression not in (None, "none", "gzip"):
        raise TaskError(f"an export has no compression {compression!r}", hint="Use gzip, or none.")
    zipped = compression == "gzip" or (compression is None and parts[-1].endswith(GZIP))
    if zipped and chosen == "parquet":
        raise TaskError("a Parquet file is compressed inside", hint="Leave out the compression.")
    if spreadsheet_safe and chosen != "csv":
        raise TaskError("spreadsheet_safe is for CSV only", hint="Leave it out; no other format has formulas.")
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= MOST_ROWS_A_BATCH:
        raise TaskError(f"a batch cannot have {batch} rows", hint=f"Use 1 to {MOST_ROWS_A_BATCH:,}.")
    return Request(parts, msgspec.convert(chosen, Format), zipped, batch, order_by, spreadsheet_safe)


def path_parts(path: str) -> tuple[str, ...]:
    """The names along a path below the directory for exports. Raises TaskError where it could lead elsewhere.

    Names that begin with a dot are refused altogether: `..`, and hidden files, which other programs obey.
    """
    parts = tuple(path.split("/")) if isinstance(path, str) else ()
    wrong = not parts or any(not part or part.startswith(".") or not part.isprintable() for part in parts)
    if wrong or "\\" in path or parts[-1].endswith(PART):
        raise TaskError(
            f"an export cannot be written to {str(path)[:200]!r}",
            hint=f"Give a path below jobs.export_dir such as daily/orders.csv: no leading slash, no name that "
            f"begins with a dot, none that ends in {PART}.",
        )
    return parts


def _guess(name: str) -> str:
    bare = name.removesuffix(GZIP)
    for ending, chosen in ENDINGS.items():
        if bare.endswith(ending):
            return chosen
    raise TaskError(
        f"the ending of {name!r} names no format",
        hint=f"End it in one of {', '.join(ENDINGS)}, or give format: {', '.join(FORMATS)}.",
    )


def named(exports: dict[str, Export], name: str) -> Export:
    """The export of that name. Raises TaskError."""
    try:
        return exports[name]
    except KeyError:
        raise TaskError(
            f"no export is named {name} in this process",
            hint='Declare it in a module named with --import: pipeline.export("orders", "select ...").',
        ) from None


def check_last(rows: list[Any], place: int, before: Any, column: str) -> Any:
    """The last row's value of the order_by column. Raises TaskError unless all differ and none is null.

    The rows are sorted, so equal values stand side by side. before: the last value of the batch before.
    """
    for row in rows:
        value = row[place]
        if value is None or value == before:
            kind = "null" if value is None else "twice the same value"
            raise TaskError(
                f"the column {column} cannot order an export: it holds {kind}",
                hint="Name a column that is unique and not null, or leave order_by out; a retry starts anew then.",
            )
        before = value
    return before
