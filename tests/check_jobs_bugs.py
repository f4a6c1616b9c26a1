"""Runs the tests of the job queue on SQL with one mistake at a time: each must fail (`make check-jobs-bugs`).

Prints a line for each mistake, and at the end a JSON object. Names on the command line choose some of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from tests.jobs_bugs import BUGS, Bug

PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
SECONDS = 300


def verdict(bug: Bug) -> tuple[str, float]:
    """What the test says of SQL with this mistake: `found` when it fails."""
    began = time.monotonic()
    environment = os.environ | {"PGREFLEX_JOBS_BUG": bug.name, "PGREFLEX_JOBS_EXAMPLES": "1500"}
    run = subprocess.run(
        [*PYTEST, "-p", "tests.jobs_bugs", bug.found_by],
        env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    said = {0: "NOT FOUND", 1: "found"}.get(run.returncode, f"broken ({run.returncode})")
    why = [line for line in run.stdout.splitlines() if line.startswith("E  ")]
    return f"{said:10} {why[0][1:].strip() if why else ''}"[:110], time.monotonic() - began


def main() -> int:
    chosen = [bug for bug in BUGS if not sys.argv[1:] or bug.name in sys.argv[1:]]
    missed = []
    for bug in chosen:
        said, seconds = verdict(bug)
        print(f"{bug.name:42} {seconds:5.1f} s  {said}", flush=True)
        if not said.startswith("found"):
            missed.append(bug.name)
    print(json.dumps({"check": "jobs-bugs", "bugs": len(chosen), "missed": missed}))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
