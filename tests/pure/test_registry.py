"""Tasks and consumers that a program brings."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.events import Event
from pipeline.core.job import Job
from pipeline.errors import TaskError
from pipeline.registry import Registry, filling, load, on, task


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module into a fresh working directory; returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> str:
        name = f"user_{uuid.uuid4().hex[:8]}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_a_bare_decorator_names_the_task_after_its_function(registry: Registry) -> None:
    with filling(registry):

        @task
        async def send(job: Job, order_id: int) -> None: ...

    [(name, known)] = registry.tasks.items()
    assert name.endswith("send")
    assert (known.queue, known.max_attempts, known.timeout, known.is_async) == ("default", 5, None, True)
    assert registry.find(send) is known


def test_options_of_the_decorator_are_kept(registry: Registry) -> None:
    with filling(registry):

        @task("mail.send", queue="mail", max_attempts=2, timeout=1.5)
        def send(job: Job, order_id: int) -> None: ...

    known = registry.tasks["mail.send"]
    assert (known.queue, known.max_attempts, known.timeout, known.is_async) == ("mail", 2, 1.5, False)


def test_arguments_are_checked_against_the_function(registry: Registry) -> None:
    with filling(registry):

        @task("t")
        def send(job: Job, order_id: int, urgent: bool = False) -> None: ...

    registry.tasks["t"].check({"order_id": 1})
    with pytest.raises(TaskError, match="missing a required argument: 'order_id'") as raised:
        registry.tasks["t"].check({})
    assert "order_id: int" in raised.value.hint or "order_id: 'int'" in raised.value.hint
    with pytest.raises(TaskError, match="unexpected keyword argument 'oder_id'"):
        registry.tasks["t"].check({"order_id": 1, "oder_id": 1})


def test_a_function_without_a_job_is_refused(registry: Registry) -> None:
    with filling(registry), pytest.raises(TaskError, match="takes no job"):

        @task
        def send() -> None: ...


def test_two_tasks_of_the_same_name_are_refused(registry: Registry) -> None:
    def one(job: Job) -> None: ...

    def two(job: Job) -> None: ...

    registry.add_task(one, name="t")
    with pytest.raises(TaskError, match=r"two tasks are named t: .*\.py:\d+ and .*\.py:\d+"):
        registry.add_task(two, name="t")


def test_a_consumer_is_registered_with_its_table_and_ops(registry: Registry) -> None:
    with filling(registry):

        @on("public.orders", ops=("insert",))
        async def seen(event: Event) -> None: ...

    [consumer] = registry.consumers
    assert (consumer.table, consumer.ops, consumer.function) == ("public.orders", ("insert",), seen)
    with filling(registry), pytest.raises(TaskError, match="'upsert' is no kind of event"):
        on("public.orders", ops=("upsert",))(seen)


def test_loading_a_module_fills_the_registry_and_leaves_the_default_alone(
    registry: Registry, write_module: Callable[[str], str]
) -> None:
    from pipeline.registry import default

    before = dict(default.tasks)
    name = write_module("import pipeline\n@pipeline.task('shop.ping')\nasync def ping(job): ...\n")
    assert load([name], registry).get("shop.ping") is not None
    assert default.tasks == before


def test_the_working_directory_is_searched_last(
    registry: Registry, write_module: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "__init__.py").write_text("raise RuntimeError('shadowed')")
    name = write_module("import handlers.running\n")
    load([name], registry)
    assert sys.path[-1] == str(tmp_path)


def test_a_module_that_does_not_exist_is_told_apart_from_one_that_misses_another(
    registry: Registry, write_module: Callable[[str], str]
) -> None:
    with pytest.raises(TaskError, match="there is no module nowhere_at_all"):
        load(["nowhere_at_all"], registry)
    name = write_module("\n\nimport nowhere_at_all\n")
    with pytest.raises(TaskError, match=rf"{name}.*nowhere_at_all.*{name}\.py.*3"):
        load([name], registry)


def test_a_module_that_fails_names_the_line_of_the_users_own_error(
    registry: Registry, write_module: Callable[[str], str]
) -> None:
    name = write_module("x = 1\ny = x / 0\n")
    with pytest.raises(TaskError, match=rf"ZeroDivisionError.*{name}\.py.*2") as raised:
        load([name], registry)
    assert raised.value.hint


def test_types_that_cannot_be_read_are_told_when_the_module_is_loaded(
    registry: Registry, write_module: Callable[[str], str]
) -> None:
    name = write_module("import pipeline\n@pipeline.task('t')\ndef a(job, x: 'Nowhere'): ...\n")
    with pytest.raises(TaskError, match="task t: the annotation of x cannot be read: Nowhere"):
        load([name], registry)


def test_two_tasks_of_one_name_in_a_module_say_so_plainly(
    registry: Registry, write_module: Callable[[str], str]
) -> None:
    name = write_module(
        "import pipeline\n@pipeline.task('t')\ndef a(job): ...\n@pipeline.task('t')\ndef b(job): ...\n"
    )
    with pytest.raises(TaskError, match="^two tasks are named t"):
        load([name], registry)
