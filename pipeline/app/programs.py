"""What the command line starts: the daemon and the demo.

Owns: signals, and the order of starting and stopping. Knows no part's inside.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import Config

SIGNALLED = 128


class AppPrograms:
    """The long-running verbs of the command line."""

    async def run(self, config: Config) -> int | None:
        """The daemon, until SIGTERM or SIGINT; both drain, a second of either leaves at once."""
        from pipeline.app.daemon import Daemon  # noqa: PLC0415 - half a second that short verbs need not pay

        daemon = Daemon(config)
        with stopping(daemon.shutdown):
            await daemon.run()
        return None

    async def demo(self, config: Config, *, data: Path | None, plain: bool) -> int | None:
        """Everything at once on an embedded server, until SIGTERM or SIGINT."""
        from pipeline.app.demo import Demo  # noqa: PLC0415 - see above

        demo = Demo(config, data=data, plain=plain)
        with stopping(demo.shutdown):
            await demo.run()
        return None


@contextmanager
def stopping(shutdown: Callable[[], None]) -> Iterator[None]:
    """Within the block, the first SIGTERM or SIGINT calls `shutdown`; the next one ends the process."""
    loop = asyncio.get_running_loop()
    asked = False

    def heard(how: signal.Signals) -> None:
        nonlocal asked
        if asked:
            os._exit(SIGNALLED + how)  # the guard of an embedded server sees to the server
        asked = True
        shutdown()

    for how in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(how, heard, how)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)
