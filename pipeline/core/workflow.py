"""What a workflow is: jobs of which some wait for others.

Owns: how one is put together, and everything that can be wrong with it before it is sent. Knows no database and no
task: what a job runs is passed through as it was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, Literal, get_args

import msgspec

from pipeline.errors import TaskError

OnFailure = Literal["cancel", "ignore", "hold"]
WorkflowState = Literal["running", "cancelling", "finished", "failed", "cancelled"]
MOST_JOBS = 100_000
MOST_NEEDS = 1_000_000
SHOWN = 20


class Step(msgspec.Struct, frozen=True, eq=False):
    """One job of a workflow that is being put together. after: names. on_failure: what becomes of it when one of
    these does not finish, or None for the workflow's own answer. Other fields as of `enqueue`."""

    name: str
    task: Any
    args: Mapping[str, Any]
    after: tuple[str, ...]
    on_failure: OnFailure | None
    queue: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    key: str | None = None
    expires_at: datetime | None = None


class Workflow:
    """Jobs that belong together.

    on_failure: what becomes of a job when one that it needs fails, is cancelled or expires. "cancel" ends it too,
    and so those that need it; "ignore" runs it all the same; "hold" lets it wait until that one was retried and
    has finished. Raises TaskError."""

    def __init__(self, name: str, *, on_failure: OnFailure = "cancel") -> None:
        if not name or len(name) > 200:
            raise TaskError("a workflow needs a name of 1 to 200 characters", hint='Workflow("import")')
        self.name = name
        self.on_failure = _known(name, on_failure)
        self._steps: dict[str, Step] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        """The jobs in the order in which they were added."""
        return tuple(self._steps.values())

    def add(
        self,
        task: Any,
        args: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        after: Step | str | Iterable[Step | str] = (),
        on_failure: OnFailure | None = None,
        queue: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        key: str | None = None,
        expires_at: datetime | None = None,
        **more: Any,
    ) -> Step:
        """Add a job; what it returns stands for it in `after` of others.

        The task's arguments are given as `args` or by name. name: what it is called in `job.results()`; by default
        as the task, with a number from the second on. after: the jobs it needs, or their names, also of jobs added
        later. Other options as of `enqueue`. Raises TaskError for a name that is taken and a job of another
        workflow."""
        if name is not None and (not name or name in self._steps):
            told = f"two jobs of workflow {self.name} are named {name}" if name else "a job's name is empty"
            raise TaskError(told, hint="Give each job a name of its own, or none.")
        given = [after] if isinstance(after, (Step, str)) else list(after)
        for step in given:
            if isinstance(step, Step) and self._steps.get(step.name) is not step:
                raise TaskError(
                    f"job {step.name} is not in workflow {self.name}",
                    hint="`after` takes what its own `add` returned.",
                )
        needs = tuple(dict.fromkeys(step.name if isinstance(step, Step) else step for step in given))
        step = Step(
            name or self._free_name(task),
            task,
            {**(args or {}), **more},
            needs,
            None if on_failure is None else _known(self.name, on_failure),
            queue,
            priority,
            run_at,
            max_attempts,
            timeout,
            key,
            expires_at,
        )
        self._steps[step.name] = step
        return step

    def check(self) -> None:
        """Raises TaskError when there is no job or are too many, a need that is not there, or a cycle, which it
        names."""
        needs = sum(len(step.after) for step in self._steps.values())
        if not self._steps:
            raise TaskError(f"workflow {self.name} has no jobs", hint="Add some before it is started.")
        if len(self._steps) > MOST_JOBS:
            raise TaskError(
                f"workflow {self.name} has {len(self._steps):,} jobs; it may have {MOST_JOBS:,}",
                hint="Let each job take many items, or start the next workflow from the last job of this one.",
            )
        if needs > MOST_NEEDS:
            raise TaskError(
                f"the jobs of workflow {self.name} have {needs:,} needs; there may be {MOST_NEEDS:,}",
                hint="Put a job between many and many: it needs the first ones, and the others need only it.",
            )
        for step in self._steps.values():
            for name in step.after:
                if name not in self._steps:
                    raise TaskError(
                        f"job {step.name} needs {name}, which is not in workflow {self.name}",
                        hint="Names are compared exactly.",
                    )
        cycle = find_cycle({step.name: step.after for step in self._steps.values()})
        if cycle:
            told = " needs ".join(cycle[:SHOWN]) + (f" ... ({len(cycle) - 1} jobs)" if len(cycle) > SHOWN else "")
            raise TaskError(f"workflow {self.name} has a cycle: {told}", hint="Leave one of these needs out.")

    def _free_name(self, task: Any) -> str:
        base = task if isinstance(task, str) else getattr(task, "__name__", None) or getattr(task, "name", "job")
        base = str(base).rpartition(".")[2] or "job"
        if base not in self._steps:
            return base
        return next(name for n in count(2) if (name := f"{base}-{n}") not in self._steps)


class Batch:
    """Jobs and one that runs after all of them have ended.

    jobs: a task and its arguments each. then: a task, or one with its arguments; None for no callback. on_failure:
    whether it runs although some did not finish ("ignore"), is cancelled ("cancel"), or waits for their retry
    ("hold"). In the callback `job.results()` holds what the others returned, by the names "1", "2", ..., and
    `.failed` the ids of those that did not finish. Raises TaskError."""

    def __init__(
        self,
        jobs: Iterable[tuple[Any, Mapping[str, Any]]],
        then: Any = None,
        *,
        on_failure: OnFailure = "ignore",
        name: str = "batch",
        queue: str | None = None,
    ) -> None:
        self.workflow = Workflow(name, on_failure=on_failure)
        for number, (task, args) in enumerate(jobs, 1):
            self.workflow.add(task, args, name=str(number), queue=queue)
        if then is not None:
            task, args = then if isinstance(then, tuple) else (then, {})
            self.workflow.add(task, args, name="then", after=self.workflow.steps, queue=queue)


def chunks(
    task: Any,
    items: Iterable[Any],
    *,
    size: int = 100,
    argument: str = "items",
    then: Any = None,
    args: Mapping[str, Any] | None = None,
    on_failure: OnFailure = "ignore",
    name: str = "chunks",
    queue: str | None = None,
) -> Batch:
    """A batch whose jobs take `size` items each, in order, as `argument`. args: what each of them gets besides."""
    if size < 1:
        raise TaskError(f"a chunk cannot have {size} items", hint="size is at least 1.")
    every = list(items)
    jobs = [(task, {**(args or {}), argument: every[at : at + size]}) for at in range(0, len(every), size)]
    return Batch(jobs, then, on_failure=on_failure, name=name, queue=queue)


class Results(dict[str, Any]):
    """What the jobs that a job has waited for returned, by their names. failed: the ids of those that did not
    finish, by name, where the job runs all the same."""

    def __init__(self, results: Mapping[str, Any] = {}, failed: Mapping[str, int] = {}) -> None:
        super().__init__(results)
        self.failed: dict[str, int] = dict(failed)


class WorkflowStatus(msgspec.Struct, frozen=True):
    """A workflow as it is now. pending: jobs that have not ended. failed: those that ended otherwise than
    finished. Times are Unix seconds. state: `failed` when every job has ended and one has not finished."""

    id: int
    name: str
    state: WorkflowState
    total: int
    pending: int
    failed: int
    created_at: float
    finished_at: float | None

    @property
    def ended(self) -> bool:
        return self.finished_at is not None


class WorkflowJob(msgspec.Struct, frozen=True):
    """A job of a workflow. needs: how many it still waits for. error: why it did not finish, or how its last run
    ended."""

    id: int
    name: str
    task: str
    state: str
    needs: int
    error: str | None


def find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle, from a name to the same name again, or [] when there is none. needs: of each name those it
    needs."""
    left = {name: len(after) for name, after in needs.items()}
    needed_by: dict[str, list[str]] = {name: [] for name in needs}
    for name, after in needs.items():
        for other in after:
            needed_by[other].append(name)
    free = [name for name, number in left.items() if not number]
    for name in free:  # grows while it is read
        for other in needed_by[name]:
            left[other] -= 1
            if not left[other]:
                free.append(other)
    if len(free) == len(needs):
        return []
    # whatever is left needs something that is left, so following that comes back to where it was
    name = next(name for name, number in left.items() if number)
    path: dict[str, None] = {}
    while name not in path:
        path[name] = None
        name = next(other for other in needs[name] if left[other])
    names = list(path)
    return [*names[names.index(name) :], name]


def _known(name: str, on_failure: OnFailure) -> OnFailure:
    if on_failure not in get_args(OnFailure):
        raise TaskError(
            f"on_failure of workflow {name} is {on_failure!r}", hint='Use "cancel", "ignore" or "hold".'
        )
    return on_failure
