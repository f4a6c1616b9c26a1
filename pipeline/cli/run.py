"""`pgreflex run`: the daemon."""

from __future__ import annotations

import click

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.modules import load_modules


@click.command(cls=Verb, short_help="Run the daemon.")
@click.option("--import", "modules", metavar="MODULE", multiple=True, help="Python module with tasks; repeatable.")
@click.option("--queues", metavar="NAME:N,..", help="Queues to work on, and how many jobs at a time.")
@click.option("--host", metavar="ADDRESS", help="Address of the status page.")
@click.option("--port", type=int, metavar="PORT", help="Port of the status page.")
@pass_session
def run(
    session: Session, modules: tuple[str, ...], queues: str | None, host: str | None, port: int | None
) -> int | None:
    """Run the daemon until it is told to stop (Ctrl-C, SIGTERM).

    Example: pgreflex run --import shop.tasks --queues 'mail:10,*:5'
    """
    session.set("imports", modules or None, "--import")
    session.set("jobs.queues", queues, "--queues")
    session.set("http.host", host, "--host")
    session.set("http.port", port, "--port")
    config = session.load().config
    load_modules(config.imports)
    return session.wait(session.programs.run(config))
