"""How a run ended, in words that the archive keeps.

Owns: the step from a result, an error or a directive to an outcome, and the text of an error. Knows neither how
jobs run nor who writes outcomes.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import structlog

from pipeline.core.args import MOST_BYTES
from pipeline.core.directives import Cancel, Directive, Discard, Retry, Snooze
from pipeline.core.job import Job, Outcome
from pipeline.core.redact import EVERYTHING, without
from pipeline.core.retry import Backoff, CustomBackoff, delay_after
from pipeline.definition import Task
from pipeline.errors import TaskError

ERROR_CHARACTERS = 4_000
TRACEBACK_FRAMES = 12
UNKNOWN_SECONDS = 60.0

_OURS = str(Path(__file__).parent)
_ZERO = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

log = structlog.get_logger("pgreflex.jobs")


class Unkept(msgspec.Struct, frozen=True):
    """In place of a result that another process could not hand over. problem: why."""

    problem: str


class ForeignError(Exception):
    """What a task raised in another process. kind: the name of its type. text: as the archive keeps it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text.partition("\n")[0])
        self.kind = kind
        self.text = text


def finished(job: Job, task: Task, result: Any, began: float, rng: Random) -> Outcome:
    """The outcome of a run that returned. A directive may be returned as well as raised.

    A result that cannot be kept fails the job, at once: to run it again would give the same, and whoever needs the
    result must not go on without it.
    """
    if isinstance(result, Directive):
        return failed(job, task, result, began, rng)
    text, problem = encoded(result)
    if problem:
        log.error("the result of a job cannot be kept", job=job.id, task=job.task, error=problem)
        error = clean(f"the result cannot be kept: {problem}")
        return Outcome(job, "fail", error=error, began=began, ms=_ms(began))
    return Outcome(job, "finish", text, began=began, ms=_ms(began))


def failed(job: Job, task: Task, error: BaseException, began: float, rng: Random) -> Outcome:
    """The outcome of a run that raised: an error, or a directive."""
    text, ms = error_text(error, hiding(job, hidden_paths(task))), _ms(began)
    if isinstance(error, Cancel):
        return Outcome(job, "cancel", error=text, began=began, ms=ms)
    if isinstance(error, Snooze):
        return Outcome(job, "snooze", error=text, delay=error.seconds, began=began, ms=ms)
    if isinstance(error, Discard) or job.last_attempt:
        log.error("a job has failed", job=job.id, task=job.task, attempt=job.attempt, error=_first_line(text))
        return Outcome(job, "fail", error=text, began=began, ms=ms)
    if isinstance(error, Retry) and error.after is not None:
        delay = error.after
    else:
        delay = _delay(job, task.backoff, error, rng)
    log.info(
        "a job will be retried",
        job=job.id, task=job.task, attempt=job.attempt, seconds=round(delay, 1), error=_first_line(text),
    )  # fmt: skip
    return Outcome(job, "retry", error=text, delay=delay, began=began, ms=ms)


def unknown(job: Job, rng: Random) -> Outcome:
    """The outcome of a job whose task this process lacks: put off, for one that has it."""
    error = TaskError(
        f"no task is named {job.task} in this process", hint="Name its module with --import, or in `imports`."
    )
    log.warning("a job waits for a process that has its task", task=job.task, hint=error.hint)
    return Outcome(job, "snooze", error=error_text(error), delay=UNKNOWN_SECONDS * rng.uniform(0.5, 1))


def too_long(job: Job, limit: float) -> TaskError:
    """The error of a run that its timeout has ended."""
    return TaskError(f"task {job.task} took longer than its timeout of {limit:g} s", hint="")


def encoded(result: Any) -> tuple[str | None, str]:
    """The result as JSON that Postgres takes, and why there is none."""
    if result is None:
        return None, ""
    if isinstance(result, Unkept):
        return None, result.problem
    try:
        encoded = msgspec.json.encode(result)
    except (TypeError, ValueError, UnicodeError, RecursionError, OverflowError) as error:
        return None, str(error)
    if len(encoded) > MOST_BYTES:
        return None, (
            f"it is {len(encoded):,} bytes of JSON, and may be {MOST_BYTES:,}."
            " Put the data in a table or a file, and return its id."
        )
    text = encoded.decode()
    if "\\u0000" in text and _ZERO.search(text):
        return None, "it holds a zero byte"
    return text, ""


def hidden_paths(task: Task) -> tuple[str, ...]:
    """Which arguments errors must not repeat."""
    return EVERYTHING if task.encrypt else task.redact


def hiding(job: Job, paths: Sequence[str]) -> Callable[[str], str]:
    """What takes those arguments of a job out of a text."""
    return lambda text: without(text, job.args, paths)


def spread(result: Any, jobs: Sequence[Job]) -> list[Any]:
    """For each job its result, or the error or directive in its place.

    None: all are done. A list: in the order of the jobs. A dict: by the ids of jobs; those not named are done.
    Raises TaskError for anything else.
    """
    if result is None:
        return [None] * len(jobs)
    if isinstance(result, Mapping):
        strange = result.keys() - {job.id for job in jobs}
        if not strange:
            return [result.get(job.id) for job in jobs]
        problem = f"names {sorted(map(repr, strange))[0]}, which is the id of none of its jobs"
    elif not isinstance(result, list | tuple):
        problem = f"is a {type(result).__name__}"
    elif len(result) == len(jobs):
        return list(result)
    else:
        problem = f"has {len(result)} entries for {len(jobs)} jobs"
    raise TaskError(
        f"what the batch returned {problem}",
        hint="Return None, a list in the order of the jobs, or a dict by job.id.",
    )


def error_text(error: BaseException, hide: Callable[[str], str] = str) -> str | None:
    """Type and message, and below them the user's end of the traceback, at most ERROR_CHARACTERS.

    Of a directive its reason alone, or None. hide: takes out what nobody is to be shown, before the text is cut.
    """
    if isinstance(error, Directive):
        return clean(hide(error.reason)) or (
            "the task asked for it" if isinstance(error, Retry | Discard) else None
        )
    if isinstance(error, ForeignError):
        return clean(hide(error.text))
    if isinstance(error, TaskError):
        return clean(hide(" ".join(filter(None, (f"{type(error).__name__}: {error.message}.", error.hint)))))
    where = error.__traceback__
    while where is not None and where.tb_next is not None and where.tb_frame.f_code.co_filename.startswith(_OURS):
        where = where.tb_next
    frames = "".join(traceback.format_list(traceback.extract_tb(where)[-TRACEBACK_FRAMES:]))
    head = hide(f"{type(error).__name__}: {error}")[: ERROR_CHARACTERS // 2]
    return clean(f"{head}\n\n{frames[-ERROR_CHARACTERS // 2 :]}".rstrip())


def clean(text: str) -> str:
    """Text that Postgres takes: no zero bytes, no half of a surrogate pair."""
    return text.replace("\x00", "\\x00").encode("utf-8", "replace").decode()[:ERROR_CHARACTERS]


def _delay(job: Job, backoff: Backoff | CustomBackoff, error: BaseException, rng: Random) -> float:
    delay, problem = delay_after(backoff, job.attempt, error, rng)
    if problem:
        log.warning("the backoff of a task is wrong; the default is used", task=job.task, error=problem)
    return delay


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _ms(began: float) -> float:
    return (time.monotonic() - began) * 1000
