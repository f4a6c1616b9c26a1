"""Runs the tests of the job queue on SQL with one mistake at a time: each must fail (`make check-jobs-bugs`).

Two run at a time, on one server. Prints a line for each mistake, and at the end a JSON object. Found is only what
an assertion has found: a test that breaks or hangs says nothing. Names on the command line choose some of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.embedded import EmbeddedServer
from tests.conftest import SERVER_SETTINGS
from tests.jobs_bugs import BUGS, Bug

PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "tests.jobs_bugs"]
SECONDS = 240
EXAMPLES = 1500  # ten times what the suite runs: the rarest is found after 400
AT_ONCE = 2
WHY = re.compile(r"^E +(?:\w+\.)*(\w+Error|assert|Failed|ExceptionGroup)\b.*", re.MULTILINE)


def verdict(bug: Bug, dsn: str) -> tuple[str, float]:
    """What the test says of SQL with this mistake: `found` when an assertion fails."""
    began = time.monotonic()
    environment = os.environ | {
        "PGREFLEX_TEST_DSN": dsn,
        "PGREFLEX_JOBS_BUG": bug.name,
        "PGREFLEX_JOBS_EXAMPLES": str(EXAMPLES),
    }
    try:
        run = subprocess.run(
            [*PYTEST, bug.found_by], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"NOT FOUND  in {SECONDS} s", time.monotonic() - began
    why = WHY.search(run.stdout)
    if run.returncode == 0:
        said = "NOT FOUND"
    elif run.returncode == 1 and why is not None and why[1] in ("AssertionError", "assert"):
        said = "found"
    else:
        said = f"BROKEN ({run.returncode})"
    return f"{said:10} {why[0][1:].strip() if why else ''}"[:110], time.monotonic() - began


def main() -> int:
    chosen = [bug for bug in BUGS if not sys.argv[1:] or bug.name in sys.argv[1:]]
    missed, began = [], time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="pgreflex-bugs-", ignore_cleanup_errors=True) as home,
        EmbeddedServer(Path(home), settings=SERVER_SETTINGS) as server,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        verdicts = pool.map(lambda bug: verdict(bug, server.dsn), chosen)
        for bug, (said, seconds) in zip(chosen, verdicts, strict=True):
            print(f"{bug.name:42} {seconds:5.1f} s  {said}", flush=True)
            if not said.startswith("found"):
                missed.append(bug.name)
    took = round(time.monotonic() - began)
    print(json.dumps({"check": "jobs-bugs", "bugs": len(chosen), "seconds": took, "missed": missed}))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
