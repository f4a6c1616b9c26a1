"""`make check-tags`: the oracle of automatic tags for SECONDS, and then every seeded mistake until it is found.

SEED chooses the worlds; BUGS=no leaves the mistakes out. Ends with status 1 when a result changed unnoticed, or
when a mistake was not found.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer
from tests.tags_bugs import BUGS
from tests.tags_oracle import Oracle

SECONDS = float(os.environ.get("SECONDS", "120"))
SECONDS_A_BUG = float(os.environ.get("SECONDS_A_BUG", "240"))


@asynccontextmanager
async def oracle(dsn: str) -> AsyncIterator[Oracle]:
    """An oracle on a migrated database, which has to be its own."""
    sql = await asyncpg.connect(dsn, statement_cache_size=0)
    made = Oracle(dsn, sql)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        await sql.close()


async def check(dsn: str, seed: int) -> bool:
    """Run the oracle as it is, and then with each mistake; whether all is well."""
    await migrate(dsn)
    async with oracle(dsn) as plain:
        await plain.run(seed, seconds=SECONDS, stop_at=None)
        print(", ".join(f"{count} {name}" for name, count in sorted(plain.counts.items())))
        for reason, count in plain.reasons.most_common(12):
            print(f"  refused {count:6}  {reason}...")
        for bug in plain.bugs[:5]:
            print(bug)
    well = not plain.bugs
    for name, bug in BUGS.items() if os.environ.get("BUGS") != "no" else ():
        began = time.monotonic()
        async with oracle(dsn) as seeded, bug(seeded):
            await seeded.run(seed, seconds=SECONDS_A_BUG, stop_at=1)
        took = time.monotonic() - began
        found, results = "found" if seeded.bugs else "NOT FOUND", seeded.counts["results"]
        print(f"{found} after {results:6} results, {took:5.1f} s: {name}", flush=True)
        well = well and bool(seeded.bugs)
    return well


def main() -> int:
    seed = int(os.environ.get("SEED", str(int(time.time()))))
    print(f"SEED={seed}")
    home = Path(tempfile.mkdtemp(prefix="pgreflex-tags-"))
    server = EmbeddedServer(home, settings={"fsync": "off", "jit": "off"})
    try:
        server.start()
        return 0 if asyncio.run(check(server.dsn, seed)) else 1
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
