"""How long jobs waited and ran, as timings.

Owns: what their series are called, and which outcomes count as errors. Knows nothing of how jobs are run.

job.run{task}: from the start of a run to its end, whatever came of it; a run that failed, or is to be repeated, is
an error. job.wait{queue}: from when a job might have run to the moment it was handed out. Both cost half a
microsecond a job.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.job import Job, Outcome
from pipeline.core.window import Live, Windows

ERRORS = frozenset({"fail", "retry"})


class JobTimings:
    """windows: where the timings go; None: nowhere."""

    def __init__(self, windows: Windows | None = None) -> None:
        self._windows = windows
        self._runs: dict[str, Live] = {}
        self._waits: dict[str, Live] = {}

    def waited(self, queue: str, jobs: Sequence[Job]) -> None:
        """These were handed out."""
        if self._windows is None or not jobs:
            return
        live = self._waits.get(queue)
        if live is None:
            live = self._waits[queue] = self._windows.series("job.wait", {"queue": queue}, "job")
        live.add_many([job.waited * 1000 if job.waited > 0 else 0.0 for job in jobs])

    def ran(self, outcome: Outcome) -> None:
        """This run has ended; one that has not begun has no duration."""
        if self._windows is None or outcome.ms is None:
            return
        task = outcome.job.task
        live = self._runs.get(task)
        if live is None:
            live = self._runs[task] = self._windows.series("job.run", {"task": task}, "job")
        live.add(outcome.ms, error=outcome.step in ERRORS)
