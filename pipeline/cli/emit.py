"""`pgreflex emit`: an event of one's own."""

from __future__ import annotations

import sys

import click

from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.db import admin


@click.command(cls=Verb, short_help="Send an event.")
@click.argument("channel")
@click.argument("payload", required=False)
@pass_session
def emit(session: Session, channel: str, payload: str | None) -> None:
    """Send an event on CHANNEL to every listener of the feed. PAYLOAD - reads stdin.

    Example: pgreflex emit prices.changed '{"sku": 42}'
    """
    text = sys.stdin.read() if payload == "-" else payload

    async def work() -> None:
        async with session.database() as db:
            await admin.emit(db, channel, text)

    session.wait(work())
