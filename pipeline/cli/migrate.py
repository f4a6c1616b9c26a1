"""`pgreflex migrate`: installs and upgrades the schema."""

from __future__ import annotations

import click

from pipeline.cli.faults import STATE_NOT_AS_ASKED
from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.db import migrate as migrations


@click.command(cls=Verb, short_help="Install or upgrade the schema.")
@click.option("--status", is_flag=True, help="Only list what would run.")
@click.option("--exit-code", is_flag=True, help="Only look; exit with 3 if anything would run.")
@pass_session
def migrate(session: Session, status: bool, exit_code: bool) -> int:
    """Bring the database to this program's schema. Safe to run at any time.

    Example: pgreflex migrate --dsn postgresql://localhost/shop
    """
    dsn = session.load().config.dsn
    looking = status or exit_code
    if looking:
        names = [file.name for file in session.wait(migrations.status(dsn)).pending]
    else:
        names = session.wait(migrations.migrate(dsn))
    if session.json:
        session.print_json({"pending" if looking else "applied": names})
    else:
        for name in names:
            session.print(f"{'pending' if looking else 'applied'}  {name}")
        if not names:
            session.hint("The schema is up to date.")
    return STATE_NOT_AS_ASKED if exit_code and names else 0
