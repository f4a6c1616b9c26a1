"""The tasks and event consumers that a program brings.

Owns: the two decorators, the registry that they fill, the check of a task's arguments. Knows neither the
queue nor the feed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload

import msgspec

from pipeline.core.export import Export
from pipeline.core.retry import Backoff
from pipeline.errors import TaskError
from pipeline.modules import load_modules

F = TypeVar("F", bound=Callable[..., Any])
OPS = ("insert", "update", "delete", "truncate", "emit", "whole")


class Task(msgspec.Struct, frozen=True):
    """A function that jobs run. `function` takes the job first and the job's args by name.

    timeout: seconds that one run may take, or None. source: where it was defined, for messages.
    """

    name: str
    function: Callable[..., Any]
    queue: str
    max_attempts: int
    timeout: float | None
    backoff: Backoff
    source: str
    signature: inspect.Signature

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def check(self, args: Mapping[str, Any]) -> None:
        """Raises TaskError when the function cannot be called with these arguments."""
        try:
            self.signature.bind(None, **args)
        except TypeError as error:
            raise TaskError(
                f"task {self.name} does not take these arguments: {error}",
                hint=f"It is defined as {self.function.__name__}{self.signature} in {self.source}.",
            ) from None


class Consumer(msgspec.Struct, frozen=True):
    """A function that takes events of one table, or of one channel of `pipeline.emit`. ops: see OPS."""

    table: str
    ops: tuple[str, ...]
    function: Callable[..., Any]
    source: str


class Registry:
    """Tasks by name, and consumers in the order in which they were defined."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.consumers: list[Consumer] = []
        self.exports: dict[str, Export] = {}

    def get(self, name: str) -> Task | None:
        """The task of that name, if this program has it."""
        return self.tasks.get(name)

    def add_task(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = "default",
        max_attempts: int = 5,
        timeout: float | None = None,
        backoff: Backoff | None = None,
    ) -> Task:
        """Register a function. Raises TaskError when it cannot be a task, or its name is taken."""
        signature = inspect.signature(function)
        first = next(iter(signature.parameters.values()), None)
        label = name or f"{function.__module__}.{function.__qualname__}"
        if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
            raise TaskError(
                f"task {label} takes no job ({source_of(function)})",
                hint="Make the job the first parameter: async def send(job: Job, order_id: int).",
            )
        if max_attempts < 1 or not queue or (timeout is not None and timeout <= 0):
            raise TaskError(
                f"task {label} has an option that cannot be meant ({source_of(function)})",
                hint="max_attempts is at least 1, timeout is seconds above 0, and queue is not empty.",
            )
        task = Task(
            label,
            function,
            queue,
            max_attempts,
            timeout,
            backoff or Backoff(),
            source_of(function),
            signature,
        )
        known = self.tasks.get(label)
        if known is not None and _home(known.function) != _home(function):
            raise TaskError(
                f"two tasks are named {label}: {known.source} and {task.source}",
                hint='Give one of them another name: @task(name="...").',
            )
        self.tasks[label] = task
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


default = Registry()
"""What the bare decorators fill outside `load`."""

_filling: ContextVar[Registry] = ContextVar("pgreflex_registry", default=default)


@overload
def task(name: F) -> F: ...


@overload
def task(
    name: str | None = None,
    *,
    queue: str = "default",
    max_attempts: int = 5,
    timeout: float | None = None,
    backoff: Backoff | None = None,
) -> Callable[[F], F]: ...


def task(
    name: Any = None,
    *,
    queue: str = "default",
    max_attempts: int = 5,
    timeout: float | None = None,
    backoff: Backoff | None = None,
) -> Any:
    """Make a task of an async or plain function; the function itself stays as it was.

    Its first parameter is the job, the others are the job's args. A plain function runs in a thread, and a
    thread cannot be stopped: after its timeout the job is retried while the thread may still be at work.
    name: what jobs call it; module and function name by default. timeout: seconds that one run may take.
    Raises TaskError.
    """
    if callable(name):
        _filling.get().add_task(name)
        return name

    def decorate(function: F) -> F:
        _filling.get().add_task(
            function, name=name, queue=queue, max_attempts=max_attempts, timeout=timeout, backoff=backoff
        )
        return function

    return decorate


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
    return registry


@contextmanager
def filling(registry: Registry) -> Iterator[Registry]:
    """Within the block the bare decorators fill this registry."""
    token = _filling.set(registry)
    try:
        yield registry
    finally:
        _filling.reset(token)


def source_of(function: Callable[..., Any]) -> str:
    """File and line of a function, or its module where there is no code to point at."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(getattr(function, "__module__", "?"))


def _home(function: Callable[..., Any]) -> tuple[str, str]:
    """Two functions with the same home are one, read twice: a reload may replace it."""
    return function.__module__, function.__qualname__
