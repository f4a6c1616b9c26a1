"""Opens the arguments of a job before it runs.

Owns: what becomes of a job whose arguments cannot be read or opened here. Knows neither how they were
sealed nor tasks.
"""

from __future__ import annotations

from random import Random

import msgspec
import structlog

from pipeline.core.job import Job, Outcome, Unreadable
from pipeline.core.seal import Sealer, is_sealed
from pipeline.errors import KeyMissing, TaskError

SHORTEST_WAIT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 300.0
SHARE_OF_AGE = 0.2

log = structlog.get_logger("pgreflex.jobs")


def opened(job: Job, sealer: Sealer, rng: Random) -> Job | Outcome:
    """The job with its arguments in clear, or how it ends without having run.

    Without the key it waits, for a fifth of its age and at least ten seconds, and loses no attempt: another
    process may have the key, or get it. What no key will open is put with the failed jobs at once.
    """
    if isinstance(job.args, Unreadable):
        log.warning("a job has failed", job=job.id, task=job.task, attempt=job.attempt, error=job.args.problem)
        return Outcome(job, "fail", error=f"its arguments cannot be read: {job.args.problem}")
    if not is_sealed(job.args):
        return job
    try:
        return msgspec.structs.replace(job, args=sealer.open(job.task, job.args))
    except KeyMissing as error:
        age = job.run_at + job.waited - job.created_at  # by the server's clock, at the time of the claim
        wait = min(LONGEST_WAIT_SECONDS, max(SHORTEST_WAIT_SECONDS, age * SHARE_OF_AGE))
        delay = wait * rng.uniform(0.75, 1)
        log.warning("a job waits for a key", job=job.id, task=job.task, seconds=round(delay), error=error.message)
        return Outcome(job, "snooze", error=f"{error.message}. {error.hint}", delay=delay)
    except TaskError as error:
        log.warning("a job has failed", job=job.id, task=job.task, attempt=job.attempt, error=error.message)
        return Outcome(job, "fail", error=f"{error.message}. {error.hint}")
