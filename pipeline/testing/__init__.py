"""For the tests of programs that have tasks: run one without a database, or what is enqueued, here and now.

Owns: the names that a test imports. Nothing of the program itself may import them.

    async with jobs(dsn) as queue:
        await sign_up("ada@example.org")
        await queue.assert_enqueued("shop.welcome", to="ada@example.org")
        assert await queue.drain() == {"finished": 1}
"""

from __future__ import annotations

from pipeline.testing.inline import InlineHost, run_inline
from pipeline.testing.queue import Drained, Enqueued, Testing, jobs

__all__ = ["Drained", "Enqueued", "InlineHost", "Testing", "jobs", "run_inline"]
