"""`pgreflex enqueue`: a job."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.cli.words import moment_option, span_option, states_option
from pipeline.db import admin


@click.command(cls=Verb, short_help="Add a job.")
@click.argument("task")
@click.argument("args", metavar="[JSON]", default="{}")
@click.option("--queue", metavar="NAME", help="Queue.")
@click.option("--in", "delay", callback=span_option, metavar="TIME", help="Not before: 90s, 5m, 1h30m, 2d.")
@click.option(
    "--at",
    "run_at",
    callback=moment_option,
    metavar="TIME",
    help="Not before: 2026-11-01T03:00; UTC if it names no zone.",
)
@click.option("--priority", type=click.IntRange(-32768, 32767), metavar="N", help="The lower number runs first.")
@click.option("--max-attempts", type=click.IntRange(1, 32767), metavar="N", help="How often it may run.")
@click.option("--timeout", callback=span_option, metavar="TIME", help="How long one run may take.")
@click.option("--key", metavar="KEY", help="Whose job it is, for limits and turns.")
@click.option(
    "--expires", callback=span_option, metavar="TIME", help="Forget it unless it begins within this time."
)
@click.option("--unique-key", metavar="KEY", help="Only one job of this key at a time.")
@click.option(
    "--unique-for",
    callback=span_option,
    metavar="TIME",
    help="One that has ended counts, so long after it was added.",
)
@click.option("--unique-states", callback=states_option, metavar="STATE,...", help="While it is in one of these.")
@click.option(
    "--on-clash",
    type=click.Choice(["skip", "replace", "reschedule", "merge"]),
    help="What becomes of a second one.",
)
@pass_session
def enqueue(session: Session, /, task: str, args: str, **options: Any) -> None:
    """Add a job for TASK; JSON holds its named arguments. Prints the job's id. What is not given comes from the
    task, once a worker has run it.

    Example: pgreflex enqueue shop.send_receipt '{"order_id": 42}' --in 5m
    """  # fmt: skip
    _check_object(args)
    if options["delay"] is not None and options["run_at"] is not None:
        raise click.UsageError("--in and --at both say when", ctx=click.get_current_context())

    async def work() -> int:
        async with session.database() as db:
            return await admin.enqueue(db, task, args, **options)

    job = session.wait(work())
    if session.json:
        session.print_json({"job": job})
    else:
        session.print(str(job))


def _check_object(args: str) -> None:
    try:
        value = msgspec.json.decode(args)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"the arguments are not JSON: {error}", ctx=click.get_current_context()) from None
    if not isinstance(value, dict):
        raise click.UsageError(
            "the arguments must be a JSON object, such as '{\"order_id\": 42}'",
            ctx=click.get_current_context(),
        )
