"""What one task is: a function and its options.

Owns: the options, their defaults, and the words for one that cannot be meant. Knows neither the other tasks nor
the queue.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from pipeline.core.args import Arguments
from pipeline.core.keys import LONGEST_KEY, check_rule, names_in, render_key, rule_of
from pipeline.core.limits import MOST, KeyRule, Rate, Unique
from pipeline.core.retry import LONGEST_WAIT, Backoff, CustomBackoff
from pipeline.errors import TaskError

LONGEST_NAME = 500
LARGEST_BATCH = 10_000
_PLAIN = str.maketrans({":": ".", "{": "(", "}": ")"})  # what a template would read


class _Mistake(Exception):
    """What is wrong with a definition; the message goes on with the task's name."""


class TaskOptions(TypedDict, total=False):
    """What `@task` takes beside the name; what is left out has the default of `Task`."""

    queue: str
    max_attempts: int
    timeout: float | None
    backoff: Backoff | CustomBackoff | None
    priority: int
    expires: float | None
    concurrency_key: str | None
    concurrency: int | None
    tenant: str | None
    rate: str | Rate | None
    unique: Unique | None
    batch: int | None
    batch_wait: float
    process: bool
    encrypt: bool
    redact: Sequence[str]


class Task(msgspec.Struct, frozen=True):
    """A function that jobs run. `function` takes the job first and the job's args by name.

    source: where it was defined, for messages. is_async: whether it is awaited, or runs in a thread.
    timeout: seconds that one run may take, or None. backoff: the wait after a run that failed. expires:
    seconds within which a job must have begun. priority: the lower number runs first.
    concurrency_key: template of the key whose jobs share the limits `concurrency` (how many run at once) and
    `rate`; without one the limits are those of the whole task. tenant: template of the key for fair turns
    alone. unique: which jobs are alike. batch: how many jobs the function takes at once, as a list in place
    of the job; batch_wait: seconds to wait for so many. process: runs in a process of its own.
    encrypt: the arguments are stored sealed. redact: the arguments that nobody is shown, or paths into them:
    `card.number`; `*` is all of them.
    """

    name: str
    function: Callable[..., Any]
    source: str
    signature: inspect.Signature
    arguments: Arguments
    is_async: bool
    queue: str = "default"
    max_attempts: int = 5
    timeout: float | None = None
    backoff: Backoff | CustomBackoff = Backoff()
    priority: int = 0
    expires: float | None = None
    concurrency_key: str | None = None
    concurrency: int | None = None
    tenant: str | None = None
    rate: Rate | None = None
    unique: Unique | None = None
    batch: int | None = None
    batch_wait: float = 0.0
    process: bool = False
    encrypt: bool = False
    redact: tuple[str, ...] = ()

    @property
    def key_template(self) -> str:
        """What the key of its jobs is made from; '' means that they have none."""
        limited = self.concurrency is not None or self.rate is not None
        return self.concurrency_key or self.tenant or (f"task.{self.name.translate(_PLAIN)}" if limited else "")

    @property
    def key_rule(self) -> KeyRule | None:
        """The limits of its keys, without limits for fair turns alone; None where its jobs have no key."""
        template = self.key_template
        return KeyRule(rule_of(template), self.concurrency, self.rate) if template else None

    def key(self, args: Mapping[str, Any]) -> str:
        """The key of a job with these arguments; '' is none. Raises TaskError for one that cannot be made."""
        template = self.key_template
        return render_key(template, args) if template else ""

    def check(self, args: Mapping[str, Any]) -> None:
        """Raises TaskError when the function cannot be called with these arguments, or has no key for them."""
        problem = self.arguments.problem(args)
        if problem:
            raise self.misfit(problem)
        self.key(args)
        if self.unique is not None and self.unique.by is not None:
            render_key(self.unique.by, args)

    def misfit(self, problem: str) -> TaskError:
        """The error for arguments that do not fit."""
        name = getattr(self.function, "__name__", self.name)
        return TaskError(
            f"task {self.name} does not take these arguments: {problem}",
            hint=f"It is defined as {name}{self.signature} in {self.source}.",
        )

    def bind(self, args: dict[str, Any]) -> dict[str, Any]:
        """What the function takes, from a job's args. Raises TaskError when they do not fit its types."""
        arguments = self.arguments
        if not arguments.ready:
            arguments.prepare()
        if arguments.bind is None:
            return args
        try:
            return arguments.bind(args)
        except ValueError:  # msgspec.ValidationError is one
            raise self.misfit(arguments.problem(args)) from None


def define(function: Callable[..., Any], name: str | None, options: TaskOptions) -> Task:
    """A task of this function. Raises TaskError that names the option, or what is wrong with the function."""
    label = name or f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    source = source_of(function)
    signature = inspect.signature(function)
    taken: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    try:
        _check_names(label, taken)
        _check_numbers(taken)
        _check_function(function, signature, taken)
        _check_limits(taken)
        arguments = Arguments(function, signature, anything="batch" in taken)
        _check_templates(arguments, taken)
        _check_kinds(function, taken)
        task = Task(label, function, source, signature, arguments, is_async(function), **taken)
        _check_key(task)
    except (_Mistake, ValueError) as error:
        raise TaskError(
            f"task {label}: {error} ({source})", hint="docs/python.md tells what options mean."
        ) from None
    return task


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call of it is to be awaited; also for an object whose class makes it callable."""
    call = getattr(function, "__call__", None)  # noqa: B004 - the method itself is asked for
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def source_of(function: Callable[..., Any]) -> str:
    """File and line of a function, or its module where there is no code to point at."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(getattr(function, "__module__", "?"))


def _check_names(label: str, taken: Mapping[str, Any]) -> None:
    if len(label) > LONGEST_NAME:
        raise _Mistake(f"its name is longer than {LONGEST_NAME} characters")
    for name in taken:
        if name not in TaskOptions.__annotations__:
            close = difflib.get_close_matches(name, TaskOptions.__annotations__, n=1)
            raise _Mistake(f"there is no option {name}" + (f"; is {close[0]} meant?" if close else ""))


def _check_function(function: Callable[..., Any], signature: inspect.Signature, taken: Mapping[str, Any]) -> None:
    parameters = list(signature.parameters.values())
    what = "list of jobs" if taken.get("batch") is not None else "job"
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        example = "jobs: list[Job]" if what != "job" else "job: Job, order_id: int"
        raise _Mistake(f"it takes no {what}; make it the first parameter: async def send({example})")
    if any(p.kind is p.POSITIONAL_ONLY and p.default is p.empty for p in parameters[1:]):
        raise _Mistake("its arguments are given by name, so none but the job may stand before the /")
    if what != "job" and any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters[1:]
    ):
        raise _Mistake("a function with batch takes the list of jobs alone; their arguments are in job.args")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _Mistake("it is a generator, which would never run; return a value in place of yield")


def _check_numbers(taken: dict[str, Any]) -> None:
    if not isinstance(taken.get("queue", "default"), str) or not 0 < len(taken.get("queue", "default")) <= 200:
        raise _Mistake("queue is a name of 1 to 200 characters")
    for name, least, most in (
        ("max_attempts", 1, 2**15 - 1),
        ("priority", -(2**15), 2**15 - 1),
        ("concurrency", 1, MOST),
        ("batch", 1, LARGEST_BATCH),
    ):
        value = taken.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _Mistake(f"{name} is a whole number from {least} to {most}, not {value!r}")
    for name in ("timeout", "expires", "batch_wait"):
        value = taken.get(name, 1)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_WAIT
        if not fits or (value == 0 and name != "batch_wait"):
            raise _Mistake(f"{name} is seconds above 0 and at most a year, not {value!r}")
    for name in ("process", "encrypt"):
        if not isinstance(taken.get(name, False), bool):
            raise _Mistake(f"{name} is True or False")
    backoff = taken.get("backoff", Backoff())
    if isinstance(backoff, type) or not (isinstance(backoff, Backoff) or callable(backoff)):
        raise _Mistake(f"backoff is a Backoff or a function of attempt and error, not {backoff!r}")


def _check_limits(taken: dict[str, Any]) -> None:
    if isinstance(taken.get("rate"), str):
        taken["rate"] = Rate.parse(taken["rate"])
    if not isinstance(taken.get("rate"), Rate | None):
        raise _Mistake(f'rate is a text such as "10/min" or a Rate, not {taken["rate"]!r}')
    if not isinstance(taken.get("unique"), Unique | None):
        raise _Mistake(f"unique is Unique(...), not {taken['unique']!r}")
    if "tenant" in taken and taken.keys() & {"concurrency_key", "concurrency", "rate"}:
        raise _Mistake(
            "tenant gives turns and no limit, and a job has one key: for limits use concurrency_key alone,"
            " whose keys take turns too"
        )
    if "concurrency_key" in taken and not taken.keys() & {"concurrency", "rate"}:
        taken["concurrency"] = 1
    if "batch_wait" in taken and "batch" not in taken:
        raise _Mistake("batch_wait needs batch")


def _check_templates(arguments: Arguments, taken: dict[str, Any]) -> None:
    unique = taken.get("unique")
    templates: dict[str, Any] = {name: taken[name] for name in ("concurrency_key", "tenant") if name in taken}
    for name, template in templates.items():
        if not isinstance(template, str):
            raise _Mistake(f"{name} is a text such as customer:{{customer_id}}, not {template!r}")
        names_in(template)
        check_rule(template)
        if len(template) > LONGEST_KEY:
            raise _Mistake(f"{name} is longer than {LONGEST_KEY} characters")
    if unique is not None and unique.by is not None:
        templates["unique"] = unique.by
    for name, template in templates.items():
        for argument in names_in(template):
            if not arguments.takes(argument):
                raise _Mistake(f"{name} names {argument}, which is no argument of it")
    redact = taken.get("redact", ())
    if isinstance(redact, str) or not all(isinstance(one, str) for one in redact):
        raise _Mistake('redact is a tuple of names of arguments: redact=("card",)')
    for path in redact:
        argument = path.partition(".")[0]
        if path != "*" and not arguments.takes(argument):
            raise _Mistake(f"redact names {argument}, which is no argument of it")
    taken["redact"] = tuple(redact)


def _check_key(task: Task) -> None:
    if len(task.key_template) > LONGEST_KEY:
        raise _Mistake(f"the key {task.key_template} is longer than {LONGEST_KEY} characters; shorten its name")


def _check_kinds(function: Callable[..., Any], taken: dict[str, Any]) -> None:
    if not taken.get("process"):
        return
    if "batch" in taken:
        raise _Mistake("batch and process do not go together")
    if "<locals>" in getattr(function, "__qualname__", "<locals>"):
        raise _Mistake("with process it is to be defined at the top of a module, which its process imports")
