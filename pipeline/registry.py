"""The tasks, middleware and event consumers that a program brings.

Owns: the decorators, the registry that they fill, what the tasks of one program must agree on. Knows neither the
queue nor the feed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar, Unpack, overload

import msgspec

from pipeline.core.export import Export
from pipeline.core.job import Job
from pipeline.core.schedule import Schedule
from pipeline.definition import Task, TaskOptions, define, is_async, source_of
from pipeline.errors import TaskError
from pipeline.modules import load_modules

__all__ = [
    "Consumer",
    "Middleware",
    "Registry",
    "Task",
    "default",
    "export",
    "filling",
    "load",
    "middleware",
    "on",
    "task",
]

F = TypeVar("F", bound=Callable[..., Any])
OPS = ("insert", "update", "delete", "truncate", "emit", "whole")

CallNext: TypeAlias = Callable[[Job], Awaitable[Any]]
Around: TypeAlias = Callable[[Job, CallNext], Awaitable[Any]]


class Consumer(msgspec.Struct, frozen=True):
    """A function that takes events of one table, or of one channel of `pipeline.emit`. ops: see OPS."""

    table: str
    ops: tuple[str, ...]
    function: Callable[..., Any]
    source: str


class Middleware(msgspec.Struct, frozen=True):
    """A function around the runs of jobs. tasks (names or functions), queues: of which; empty means all."""

    function: Around
    tasks: tuple[str | Callable[..., Any], ...] = ()
    queues: tuple[str, ...] = ()

    def covers(self, job: Job, task: Task) -> bool:
        """Whether it is around this job's runs."""
        return (not self.tasks or task.name in self.tasks or task.function in self.tasks) and (
            not self.queues or job.queue in self.queues
        )


class Registry:
    """Tasks by name; consumers and middleware in the order in which they were defined."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.consumers: list[Consumer] = []
        self.exports: dict[str, Export] = {}
        self.middlewares: list[Middleware] = []
        self.schedules: list[Schedule] = []

    def get(self, name: str) -> Task | None:
        """The task of that name, if this program has it."""
        return self.tasks.get(name)

    def add_task(
        self, function: Callable[..., Any], *, name: str | None = None, **options: Unpack[TaskOptions]
    ) -> Task:
        """Register a function. Raises TaskError when it cannot be a task, its name is taken, or its key's limits
        are not those of another task with such keys."""
        task = define(function, name, options)
        known = self.tasks.get(task.name)
        if known is not None and _home(known.function) != _home(function):
            raise TaskError(
                f"two tasks are named {task.name}: {known.source} and {task.source}",
                hint='Give one of them another name: @task(name="...").',
            )
        self._check_rule(task)
        self.tasks[task.name] = task
        return task

    def add_consumer(self, function: Callable[..., Any], table: str, ops: Sequence[str] = ()) -> Consumer:
        """Register a consumer of events; no ops means all. Raises TaskError for an unknown op."""
        unknown = [op for op in ops if op not in OPS]
        if unknown:
            raise TaskError(
                f"{unknown[0]!r} is no kind of event ({source_of(function)})", hint=f"Use {', '.join(OPS)}."
            )
        consumer = Consumer(table, tuple(ops), function, source_of(function))
        self.consumers = [c for c in self.consumers if (_home(c.function), c.table) != (_home(function), table)]
        self.consumers.append(consumer)
        return consumer

    def add_export(self, name: str, query: str, *, order_by: str | None = None) -> Export:
        """Let jobs export this query by its name. Raises TaskError when the name stands for another one."""
        export = Export(name, query, order_by)
        if not name or not query.strip():
            raise TaskError("an export has a name and a query", hint='pipeline.export("orders", "select ...")')
        if self.exports.setdefault(name, export) != export:
            raise TaskError(f"two exports are named {name}", hint="Give one of them another name.")
        return export

    def add_middleware(
        self,
        function: Around,
        *,
        tasks: Iterable[str | Callable[..., Any]] = (),
        queues: Iterable[str] = (),
    ) -> Middleware:
        """Register a function around runs; the first that is registered is outermost. Raises TaskError."""
        if not is_async(function):
            raise TaskError(
                f"the middleware {getattr(function, '__name__', function)} is not async ({source_of(function)})",
                hint="Write: async def name(job, call_next): return await call_next(job)",
            )
        if isinstance(tasks, str) or isinstance(queues, str):
            raise TaskError(
                f"tasks and queues of a middleware are lists ({source_of(function)})", hint='tasks=["a"]'
            )
        made = Middleware(function, tuple(tasks), tuple(queues))
        self.middlewares = [m for m in self.middlewares if _home(m.function) != _home(function)]
        self.middlewares.append(made)
        return made

    def prepare(self) -> None:
        """Read the types of all arguments now. Raises TaskError for a task whose types cannot be read."""
        for task in self.tasks.values():
            try:
                task.arguments.prepare()
            except TaskError as error:
                raise TaskError(f"task {task.name}: {error.message} ({task.source})", hint=error.hint) from None

    def find(self, task: str | Task | Callable[..., Any]) -> Task | None:
        """The task meant by a name, a Task or a decorated function; None for a name that is not known here.

        Raises TaskError for a function that is no task.
        """
        if isinstance(task, Task):
            return task
        if isinstance(task, str):
            return self.get(task)
        for known in self.tasks.values():
            if known.function is task:
                return known
        raise TaskError(
            f"{getattr(task, '__qualname__', task)!s} is not a task", hint="Decorate it with @pipeline.task."
        )

    def _check_rule(self, task: Task) -> None:
        rule = task.key_rule
        for other in self.tasks.values():
            theirs = other.key_rule
            if rule is None or theirs is None or other.name == task.name:
                continue
            if theirs.name == rule.name and theirs != rule:
                raise TaskError(
                    f"the tasks {other.name} ({other.source}) and {task.name} ({task.source}) set different limits"
                    f" for the keys {rule.name}:...",
                    hint="Tasks whose keys begin with the same word share their limits: set the same concurrency"
                    " and rate in both, or let one of the keys begin with another word.",
                )


default = Registry()
"""What the bare decorators fill outside `load`."""

_filling: ContextVar[Registry] = ContextVar("pgreflex_registry", default=default)


@overload
def task(name: F) -> F: ...


@overload
def task(name: str | None = None, **options: Unpack[TaskOptions]) -> Callable[[F], F]: ...


def task(name: Any = None, **options: Unpack[TaskOptions]) -> Any:
    """Make a task of an async or plain function; the function itself stays as it was.

    Its first parameter is the job, the others are the job's args. A plain function runs in a thread, and a
    thread cannot be stopped: after its timeout the job is retried while the thread may still be at work.
    name: what jobs call it; module and function name by default. options: see `Task`. Raises TaskError.
    """
    if callable(name):
        _filling.get().add_task(name)
        return name

    def decorate(function: F) -> F:
        _filling.get().add_task(function, name=name, **options)
        return function

    return decorate


@overload
def middleware(function: F) -> F: ...


@overload
def middleware(
    *, tasks: Iterable[str | Callable[..., Any]] = (), queues: Iterable[str] = ()
) -> Callable[[F], F]: ...


def middleware(
    function: Any = None, *, tasks: Iterable[str | Callable[..., Any]] = (), queues: Iterable[str] = ()
) -> Any:
    """Put an async function `(job, call_next)` around every run of a job, or of those of some tasks or queues.

    `await call_next(job)` runs the job and returns its result, or raises what it raised. What the function
    returns is the job's result, what it raises is its error. Raises TaskError.
    """

    def decorate(function: F) -> F:
        _filling.get().add_middleware(function, tasks=tasks, queues=queues)
        return function

    return decorate if function is None else decorate(function)


def on(table: str, ops: Sequence[str] = ()) -> Callable[[F], F]:
    """Call the function with each event of a watched table, or of a channel of `pipeline.emit`.

    ops: insert, update, delete, truncate, emit, whole; none means all. Raises TaskError.
    """

    def decorate(function: F) -> F:
        _filling.get().add_consumer(function, table, ops)
        return function

    return decorate


def export(name: str, query: str, *, order_by: str | None = None) -> Export:
    """Let jobs of the task `pgreflex.export` write the rows of this query to a file; see docs/jobs.md.

    query: one SELECT; $1, $2, ... stand for the job's `params`. It runs with the rights of the daemon's role, for
    everybody who may enqueue. order_by: a column of the result, unique and never null, by which the rows are
    sorted: then a retry goes on where the attempt before it has got to. Raises TaskError.
    """
    return _filling.get().add_export(name, query, order_by=order_by)


def load(modules: Sequence[str], registry: Registry = default) -> Registry:
    """Import task modules, so that their decorators fill `registry`.

    Raises TaskError when a module is not found, fails while it is imported, or names a task that exists.
    """
    with filling(registry):
        try:
            load_modules(modules)
        except TaskError as error:
            if isinstance(error.__cause__, TaskError):
                raise error.__cause__ from None
            raise
    registry.prepare()
    return registry


@contextmanager
def filling(registry: Registry) -> Iterator[Registry]:
    """Within the block the bare decorators fill this registry."""
    token = _filling.set(registry)
    try:
        yield registry
    finally:
        _filling.reset(token)


def filled() -> Registry:
    """The registry that the bare decorators fill now."""
    return _filling.get()


def _home(function: Callable[..., Any]) -> tuple[str, str]:
    """Two functions with the same home are one, read twice: a reload may replace it."""
    return function.__module__, getattr(function, "__qualname__", repr(function))
