"""`pgreflex watch`, `unwatch`, `watched`: which tables report their changes."""

from __future__ import annotations

import click

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.db import admin


def _columns(_context: click.Context, _param: click.Parameter, value: str | None) -> list[str] | None:
    """`id,tenant` as a list; the database quotes the names."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if not all(names):
        raise click.BadParameter("names stand between single commas")
    return names


@click.command(cls=Verb, short_help="Let a table report its changes.")
@click.argument("table")
@click.option("--keys", metavar="COL,..", callback=_columns, help="Key columns; by default the primary key.")
@click.option("--columns", metavar="COL,..", callback=_columns, help="Only changes of these columns count.")
@click.option("--timing", is_flag=True, help="Also measure the statements on it.")
@click.option("--durable", is_flag=True, help="Keep its events through a crash; writes cost more.")
@pass_session
def watch(
    session: Session,
    table: str,
    *,
    keys: list[str] | None,
    columns: list[str] | None,
    timing: bool,
    durable: bool,
) -> None:
    """Put triggers on TABLE; calling it again changes them.

    Example: pgreflex watch public.orders --keys id --timing
    """

    async def work() -> str:
        async with session.database() as db:
            return await admin.watch(db, table, keys=keys, columns=columns, timing=timing, durable=durable)

    tag = session.wait(work())
    if session.json:
        session.print_json({"watched": tag})
    else:
        session.print(f"watched  {tag}")


@click.command(cls=Verb, short_help="Take a table's triggers off.")
@click.argument("table")
@pass_session
def unwatch(session: Session, table: str) -> None:
    """Take the triggers off TABLE.

    Example: pgreflex unwatch public.orders
    """

    async def work() -> bool:
        async with session.database() as db:
            return await admin.unwatch(db, table)

    was = session.wait(work())
    if session.json:
        session.print_json({"unwatched": was})
    elif was:
        session.print(f"unwatched  {table}")
    else:
        session.hint(f"{table} was not watched.")


@click.command(cls=Verb, short_help="List the watched tables.")
@pass_session
def watched(session: Session) -> None:
    """List the watched tables, and what is amiss with any.

    Example: pgreflex watched --json
    """

    async def work() -> list[admin.Watched]:
        async with session.database() as db:
            return await admin.watched(db)

    tables = session.wait(work())
    if session.json:
        session.print_json(tables)
    elif not tables:
        session.hint("No table is watched. Watch one with `pgreflex watch TABLE`.")
    else:
        session.print_table(
            ["table", "keys", "columns", "timing", "durable", "problem"], [_row(table) for table in tables]
        )


def _row(table: admin.Watched) -> list[str]:
    columns = "all" if table.columns is None else ",".join(table.columns)
    flags = ["yes" if flag else "no" for flag in (table.timing, table.durable)]
    return [table.relation, ",".join(table.keys) or "none", columns, *flags, table.problem or "none"]
