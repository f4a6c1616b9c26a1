"""`pgreflex workers`: the processes that run jobs."""

from __future__ import annotations

import click

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.cli.words import moment
from pipeline.core.span import show_span
from pipeline.db.job_view import VIEW_SETTINGS, JobViews, WorkerRow


@click.command(cls=Verb, short_help="The processes that run jobs.")
@pass_session
def workers(session: Session) -> None:
    """List who runs jobs, of which queues, what each holds, and when it was last seen. The jobs of one that is
    silent for 15 s are run by others.

    Example: pgreflex workers --json
    """

    async def ask() -> list[WorkerRow]:
        async with session.database(VIEW_SETTINGS) as db:
            return await JobViews(db).workers()

    found = session.wait(ask())
    if session.json:
        session.print_json(found)
        return
    if not found:
        session.hint("No worker has run within the last day. Start one with `pgreflex run`.")
        return
    session.print_table(
        ["id", "name", "state", "queues", "jobs", "leases", "since", "seen"],
        [
            [
                str(one.id), one.name, "alive" if one.alive else "silent", " ".join(one.queues), str(one.jobs),
                str(one.leases), moment(one.started_at), f"{show_span(max(one.seen_ago, 0))} ago",
            ]
            for one in found
        ],
    )  # fmt: skip
