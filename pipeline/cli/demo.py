"""`pgreflex demo`: everything at once, on a Postgres of its own."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session


@click.command(cls=Verb, short_help="Show everything on a Postgres of its own.")
@click.option("--port", type=int, metavar="PORT", help="Port of the status page.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the data there; by default it goes when the demo ends.",
)
@click.option("--plain", is_flag=True, help="Print lines instead of a live picture.")
@pass_session
def demo(session: Session, port: int | None, data: Path | None, plain: bool) -> int | None:
    """Start a Postgres, sample tables, traffic and the status page.

    Example: pgreflex demo --port 9000
    """
    session.set("http.port", port, "--port")
    return session.wait(session.programs.demo(session.load().config, data=data, plain=plain))
