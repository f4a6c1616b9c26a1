"""How timings are laid out: tables in 80 columns, histograms, figures with their units.

Owns: the picture as plain lines. Knows no database, no colour and no stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.span import show_span
from pipeline.core.sparkline import sparkline
from pipeline.db.timing_view import OTHER, Bucket, QueryRow, SeriesRow, Totals

INDENT = "  "
SPARKS = 20  # so that a fingerprint fits beside it in 80 columns
BAR = 30
OTHER_HINT = (
    "other: a process keeps 10,000 series alive; what came beyond that is counted in the series `other`, or under"
    ' its name with other="true".'
)


def table(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], str]], width: int) -> list[str]:
    """Aligned columns: the first is text, the others are numbers. A row is its cells and a text that goes below,
    cut to `width`; a first cell that is too long for its column has a line of its own."""
    sizes = [max([len(head), *(len(cells[at]) for cells, _ in rows)]) for at, head in enumerate(heads)]
    rest = sum(sizes[1:]) + len(INDENT) * (len(sizes) - 1)
    sizes[0] = min(sizes[0], max(width - rest, len(heads[0]), 8))
    lines = [_line(heads, sizes)]
    for cells, below in rows:
        alone = len(cells[0]) > sizes[0]
        if alone:
            lines.append(cells[0])
        lines.append(_line(("" if alone else cells[0], *cells[1:]), sizes))
        if below:
            lines.append(cut(INDENT + shown(" ".join(below.split())), width))
    return lines


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    return INDENT.join(
        [cells[0].ljust(sizes[0]), *(c.rjust(s) for c, s in zip(cells[1:], sizes[1:], strict=True))]
    )


def cut(text: str, width: int) -> str:
    """The text, shortened where it is longer."""
    return text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."


def top(found: Sequence[SeriesRow | QueryRow], width: int) -> list[str]:
    """`pgreflex timings top`; queries with their texts."""
    rows = [
        ((name_of(one), number(count_of(one)), duration(one.total_ms), *_percentiles(one), number(one.errors),
          percent(one.share)), text_of(one))
        for one in found
    ]  # fmt: skip
    return table((_head(found), "count", "total", "p50", "p95", "p99", "errors", "share"), rows, width)


def watched(
    found: Sequence[SeriesRow | QueryRow], p95s: Sequence[Sequence[float | None]], width: int, *, blocks: bool
) -> list[str]:
    """`pgreflex timings watch`: each with the line of its p95, as far as that is known."""
    rows = [
        ((name_of(one), number(count_of(one)), *_percentiles(one), number(one.errors),
          sparkline(values[-SPARKS:], blocks=blocks)), text_of(one))
        for one, values in zip(found, p95s, strict=True)
    ]  # fmt: skip
    return table((_head(found), "count", "p50", "p95", "p99", "errors", "p95 in time"), rows, width)


def _head(found: Sequence[SeriesRow | QueryRow]) -> str:
    return "fingerprint" if found and isinstance(found[0], QueryRow) else "series"


def spans(found: Sequence[Totals], width: int) -> list[str]:
    """A series over several spans."""
    rows = [
        ((show_span(one.over_seconds), number(one.count), *_percentiles(one), duration(one.max_ms),
          duration(one.mean_ms), number(one.errors)), "")
        for one in found
    ]  # fmt: skip
    return table(("over", "count", "p50", "p95", "p99", "max", "mean", "errors"), rows, width)


def histogram(found: Sequence[Bucket]) -> list[str]:
    """A bar for each bucket, of number signs, which every terminal and file can show."""
    most = max((one.share for one in found), default=0.0)
    texts = [(duration(one.above_ms), duration(one.upto_ms), number(one.count)) for one in found]
    wide = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        f"{above.rjust(wide[0])} - {upto.rjust(wide[1])}  {count.rjust(wide[2])}  {percent(share):>6}  "
        f"{'#' * max(round(share / most * BAR), 1 if share else 0)}".rstrip()
        for (above, upto, count), share in zip(texts, (one.share for one in found), strict=True)
    ]


def text_of(one: SeriesRow | QueryRow) -> str:
    """What goes below a row: the text of a query."""
    if one.query is not None or isinstance(one, SeriesRow):
        return one.query or ""
    return "all queries beyond the bound on series" if one.fingerprint == OTHER else "(the text is not known)"


def name_of(one: SeriesRow | QueryRow) -> str:
    """The fingerprint of a query, the series of another."""
    return shown(one.series if isinstance(one, SeriesRow) else one.fingerprint)


def count_of(one: SeriesRow | QueryRow) -> int:
    """How many timings."""
    return one.count if isinstance(one, SeriesRow) else one.calls


def shown(text: str) -> str:
    """The text without what would break a line or a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def is_other(one: SeriesRow | QueryRow) -> bool:
    """Whether it holds what came beyond the bound."""
    if isinstance(one, QueryRow):
        return one.fingerprint == OTHER
    return one.series == OTHER or (one.labels or {}).get(OTHER) == "true"


def _percentiles(one: SeriesRow | QueryRow | Totals) -> tuple[str, str, str]:
    return duration(one.p50_ms), duration(one.p95_ms), duration(one.p99_ms)


def duration(ms: float | None) -> str:
    """0.42 ms, 4.6 ms, 122 ms, 1.84 s, 3.2 min, 5.1 h; `-` for none."""
    if ms is None:
        return "-"
    for limit, divisor, digits, unit in (
        (0.0005, 1, 0, "ms"), (0.995, 1, 2 if ms >= 0.01 else 3, "ms"), (99.95, 1, 1, "ms"), (999.5, 1, 0, "ms"),
        (59_995, 1e3, 2, "s"), (3.6e6, 6e4, 1, "min"), (1.728e8, 3.6e6, 1, "h"),
    ):  # fmt: skip
        if ms < limit:
            return f"{ms / divisor:.{digits}f} {unit}"
    return f"{ms / 8.64e7:,.1f} d"


def number(value: int) -> str:
    """812, 12,840, 118k, 4.18M, 1.20G."""
    if value < 100_000:
        return f"{value:,}"
    return (
        f"{value / 1e3:.0f}k" if value < 1e6 else f"{value / 1e6:.2f}M" if value < 1e9 else f"{value / 1e9:.2f}G"
    )


def percent(share: float | None) -> str:
    """A share of 1."""
    return "-" if share is None else f"{share:.1%}"
