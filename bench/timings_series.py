"""The process that holds many live series; bench/timings_process.py starts it.

Owns: what is filled, and how the memory is read.
"""

from __future__ import annotations

import sys
import time
from random import Random

from bench.jobs_child import tell
from pipeline.app.daemon import resident_bytes
from pipeline.core.window import BASE_SECONDS, Windows

MEAN_SAMPLES = 100  # of a series in a window: most digests are as large as they become
WINDOWS = 1  # one window is filled while the last is on its way to the database


def main(series: int) -> None:
    before = resident_bytes() or 0
    now = [time.time() // BASE_SECONDS * BASE_SECONDS]
    windows = Windows(lambda: now[0], max_series=series)
    random = Random(1)
    lives = [windows.series("query", {"fingerprint": f"{number:016x}"}, "query") for number in range(series)]
    idle = resident_bytes() or 0
    samples = 0
    for window in range(WINDOWS + 1):
        now[0] += BASE_SECONDS * (window > 0)
        for live in lives:
            for _ in range(MEAN_SAMPLES):
                live.add(random.lognormvariate(1, 1), rows=1)
            samples += MEAN_SAMPLES
    held = windows.parts()
    after = resident_bytes() or 0
    if len(held) != series * (WINDOWS + 1):
        raise RuntimeError(f"{len(held)} parts are held")
    tell(megabytes={"filled": (after - before) / 1e6, "idle": (idle - before) / 1e6, "samples": samples})


if __name__ == "__main__":
    main(int(sys.argv[1]))
