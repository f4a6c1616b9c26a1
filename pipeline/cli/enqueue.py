"""`pgreflex enqueue`: a job."""

from __future__ import annotations

import re

import click
import msgspec

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.db import admin

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def _seconds(_context: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """`90`, `90s`, `5m`, `1h30m`, `2d` as seconds."""
    if value is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise click.BadParameter(f"{value} is not a time; write 90s, 5m, 1h30m or 2d")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


@click.command(cls=Verb, short_help="Add a job.")
@click.argument("task")
@click.argument("args", metavar="[JSON]", default="{}")
@click.option("--queue", metavar="NAME", default="default", help="Queue; default: default.")
@click.option("--in", "delay", callback=_seconds, metavar="TIME", help="Not before: 90s, 5m, 1h30m, 2d.")
@click.option("--priority", type=int, default=0, metavar="N", help="The lower number runs first; default: 0.")
@pass_session
def enqueue(session: Session, task: str, args: str, *, queue: str, delay: float | None, priority: int) -> None:
    """Add a job for TASK; JSON holds its named arguments. Prints the job's id.

    Example: pgreflex enqueue shop.send_receipt '{"order_id": 42}' --in 5m
    """
    _check_object(args)

    async def work() -> int:
        async with session.database() as db:
            return await admin.enqueue(db, task, args, queue=queue, priority=priority, delay_seconds=delay)

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
