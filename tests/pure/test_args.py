"""Typed arguments: checked when a job is added, converted when it runs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from pipeline.core.args import to_json
from pipeline.core.job import Job
from pipeline.errors import TaskError
from pipeline.registry import Registry, Task

if TYPE_CHECKING:
    from collections import Counter as OnlyForTypes


class Size(enum.Enum):
    SMALL = "s"


class Item(msgspec.Struct):
    sku: int
    next: Item | None = None


@dataclasses.dataclass
class Place:
    street: str


class Order(pydantic.BaseModel):
    id: int
    at: dt.date | None = None


DEFAULT: list[int] = [1]


async def everything(
    job: Job,
    number: int,
    share: float,
    when: dt.datetime,
    which: uuid.UUID,
    price: Decimal,
    size: Size,
    item: Item,
    place: Place,
    order: Order,
    path: Path,
    mode: Literal["a", "b"] = "a",
    few: Annotated[int, msgspec.Meta(le=9)] = 1,
    orders: list[Order] = [],  # noqa: B006
    default: list[int] = DEFAULT,
    either: Item | Place | None = None,
    free: Any = None,
    plain=None,  # type: ignore[no-untyped-def]
) -> None: ...


GIVEN = {
    "number": 1, "share": 2, "when": "2026-01-02T03:04:05Z", "which": str(uuid.UUID(int=7)), "price": "1.50",
    "size": "s", "item": {"sku": 1, "next": {"sku": 2}}, "place": {"street": "x"}, "order": {"id": 1},
    "path": "a/b", "orders": [{"id": 2, "at": "2026-01-02"}], "free": [1], "plain": {"a": 1},
}  # fmt: skip


def made(function: Any = None, **options: Any) -> Task:
    return Registry().add_task(function or loose_union, name="t", **options)


async def loose_union(job: Job, either: Item | int | None = None) -> None: ...


@pytest.fixture
def task() -> Task:
    everything.__annotations__["either"] = "Item | None"
    return made(everything)


def test_json_becomes_what_the_function_is_annotated_with(task: Task) -> None:
    bound = task.bind(dict(GIVEN))
    assert bound == {
        "number": 1, "share": 2.0, "when": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "which": uuid.UUID(int=7), "price": Decimal("1.50"), "size": Size.SMALL, "item": Item(1, Item(2)),
        "place": Place("x"), "order": Order(id=1), "path": Path("a/b"), "mode": "a", "few": 1,
        "orders": [Order(id=2, at=dt.date(2026, 1, 2))], "default": [1], "either": None, "free": [1],
        "plain": {"a": 1},
    }  # fmt: skip
    assert bound["default"] is DEFAULT


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("number", "1", "number: expected `int`, got `str`"),
        ("number", None, "number: expected `int`, got `null`"),
        ("when", "soon", "when: invalid RFC3339 encoded datetime"),
        ("which", "7", "which: invalid UUID"),
        ("size", "xl", "size: invalid enum value 'xl'"),
        ("item", {"sku": "1"}, "item.sku: expected `int`, got `str`"),
        ("item", {"sku": 1, "next": {}}, "item.next: object missing required field `sku`"),
        ("place", {}, "place: object missing required field `street`"),
        ("order", {"id": "x"}, "order.id: input should be a valid integer"),
        ("orders", [{"id": None}], "orders.0.id: input should be a valid integer"),
        ("path", 1, "path: input is not a valid path"),
        ("mode", "c", "mode: invalid enum value 'c'"),
        ("few", 10, "few: expected `int` <= 9"),
        ("nmber", 1, "got an unexpected keyword argument 'nmber'"),
        ("job", 1, "got an unexpected keyword argument 'job'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(task: Task, name: str, value: Any, problem: str) -> None:
    for call in (task.check, task.bind):
        if "unexpected" in problem and call == task.bind:
            continue
        with pytest.raises(TaskError) as raised:
            call({**GIVEN, name: value})
        assert raised.value.message.startswith(f"task t does not take these arguments: {problem}")
        assert "everything(job: 'Job', number: 'int'" in raised.value.hint
        assert "test_args.py:" in raised.value.hint


def test_a_missing_argument_is_named(task: Task) -> None:
    with pytest.raises(TaskError, match="missing a required argument: 'number', 'when'"):
        task.check({name: value for name, value in GIVEN.items() if name not in ("when", "number")})


def test_values_of_the_types_themselves_can_be_enqueued_and_come_back_the_same(task: Task) -> None:
    values = task.bind(dict(GIVEN))
    task.check(values)
    assert task.bind(msgspec.json.decode(to_json(values))) == values


def test_a_value_that_is_right_once_it_is_json_is_taken() -> None:
    async def dated(job: Job, day: dt.date, names: dict[str, int]) -> None: ...

    made(dated).check({"day": "2026-01-02", "names": {1: 2}})
    with pytest.raises(TaskError, match=r"names.*expected `int`"):
        made(dated).check({"day": dt.date(2026, 1, 2), "names": {1: "2"}})


def test_further_arguments_are_typed_too_where_the_function_takes_any() -> None:
    async def more(job: Job, a: int, **rest: int) -> None: ...

    async def loose(job: Job, a: Any, *_: int, **rest: Any) -> None: ...

    task = made(more)
    assert task.bind({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(TaskError, match="b: expected `int`, got `str`"):
        task.check({"a": 1, "b": "2"})
    for one in (task, made(loose)):
        with pytest.raises(TaskError, match="unexpected keyword argument 'job'"):
            one.check({"a": 1, "job": 2})
    made(loose).check({"a": object, "b": None})


def test_without_types_nothing_is_converted() -> None:
    async def untyped(job, a, b: Any = 1, **rest):  # type: ignore[no-untyped-def]
        ...

    args = {"a": "1", "z": [2]}
    assert made(untyped).bind(args) is args


def test_an_annotation_that_nothing_can_become_is_refused_when_the_types_are_read() -> None:
    class Opaque: ...

    async def names(job: Job, a: OnlyForTypes) -> None: ...

    async def opaque(job: Job, a: int) -> None: ...

    opaque.__annotations__["a"] = Opaque
    for function, problem in (
        (names, r"the annotation of a cannot be read: OnlyForTypes \(NameError"),
        (opaque, "the annotation of a is .*Opaque.*, which no JSON becomes"),
    ):
        registry = Registry()
        task = registry.add_task(function, name="t")
        with pytest.raises(TaskError, match=f"^task t: {problem}") as raised:
            registry.prepare()
        assert raised.value.hint
        with pytest.raises(TaskError, match=problem):
            task.check({"a": 1})


def test_names_defined_below_the_function_are_found() -> None:
    assert made(loose_union).bind({"either": {"sku": 3}}) == {"either": Item(3)}
    assert made(later).bind({"a": {"x": 3}}) == {"a": Later(3)}


async def later(job: Job, a: Later) -> None: ...


class Later(msgspec.Struct):
    x: int
