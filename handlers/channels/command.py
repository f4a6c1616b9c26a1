"""A command of one's own: the notification as JSON on its standard input.

Owns: the process, from its start to its surely being gone. No shell is involved. An exit status of 0 is
acceptance, 65 (data error) and 77 (no permission) say that trying again cannot help.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from handlers.channels import NotAccepted
from pipeline.core.alert_message import Notification

SECONDS = 30.0
PERMANENT = (65, 77)


class Command:
    """Runs `argv`. Its environment is the daemon's less our settings, and PGREFLEX_NOTIFICATION_ID."""

    kind = "command"

    def __init__(self, argv: Sequence[str], *, seconds: float = SECONDS) -> None:
        self._argv = list(argv)
        self._seconds = seconds

    async def send(self, notification: Notification) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env=_environment(notification.id),
            )
        except OSError as error:
            raise NotAccepted(f"{self._argv[0]} cannot be run: {error.strerror}", permanent=True) from None
        try:
            async with asyncio.timeout(self._seconds):
                with suppress(RuntimeError, OSError):  # it does not read: uvloop's, and asyncio's own
                    await process.communicate(msgspec.json.encode(notification))
                await process.wait()
        except TimeoutError:
            raise NotAccepted(f"{self._argv[0]} did not end within {self._seconds:g} s") from None
        finally:
            await _end(process)
        if process.returncode:
            permanent = process.returncode in PERMANENT
            raise NotAccepted(f"{self._argv[0]} ended with {process.returncode}", permanent=permanent)


def _environment(id_: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("PGREFLEX_", "PG"))}
    mine.pop("DATABASE_URL", None)
    return {**mine, "PGREFLEX_NOTIFICATION_ID": id_}


async def _end(process: asyncio.subprocess.Process) -> None:
    """Whatever it started goes with it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
