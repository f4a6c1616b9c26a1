"""Options of a task: what is kept, and what is refused when it is defined."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.job import Job
from pipeline.core.limits import KeyRule, Rate, Unique
from pipeline.core.retry import Backoff
from pipeline.errors import TaskError
from pipeline.registry import Registry


async def send(job: Job, customer_id: int, card: str = "") -> None: ...


def defined(function: Any = send, name: str = "t", **options: Any) -> Any:
    return Registry().add_task(function, name=name, **options)


def test_every_option_is_kept() -> None:
    unique = Unique(by="{customer_id}", window=60, states=("delayed", "failed"), on_clash="merge")
    task = defined(
        queue="mail", max_attempts=2, timeout=1.5, backoff=Backoff.fixed(3), priority=-5, expires=60,
        concurrency_key="customer:{customer_id}", concurrency=3, rate="10/min", unique=unique, encrypt=True,
        redact=("card",),
    )  # fmt: skip
    kept = {name: getattr(task, name) for name in task.__struct_fields__[6:]}
    assert kept == {
        "queue": "mail", "max_attempts": 2, "timeout": 1.5, "backoff": Backoff.fixed(3), "priority": -5,
        "expires": 60, "concurrency_key": "customer:{customer_id}", "concurrency": 3, "tenant": None,
        "rate": Rate(10, 60), "unique": unique, "batch": None, "batch_wait": 0.0, "process": False,
        "encrypt": True, "redact": ("card",),
    }  # fmt: skip


def test_a_concurrency_key_alone_means_one_at_a_time() -> None:
    assert defined(concurrency_key="customer:{customer_id}").concurrency == 1
    assert defined(concurrency_key="customer:{customer_id}", rate="1/s").concurrency is None


def test_the_key_of_a_job_comes_from_its_arguments() -> None:
    task = defined(concurrency_key="customer:{customer_id}", concurrency=2, rate="5/s")
    assert task.key({"customer_id": 7}) == "customer:7"
    assert task.key_rule == KeyRule("customer", 2, Rate(5, 1))
    turns = defined(tenant="shop:{card}")
    assert turns.key({"card": "a:b"}) == "shop:a:b"
    assert turns.key_rule == KeyRule("shop", None, None)
    assert (defined().key({}), defined().key_rule) == ("", None)


def test_limits_without_a_key_are_those_of_the_whole_task_and_of_no_other() -> None:
    registry = Registry()
    slow = registry.add_task(send, name="mail.slow", rate="1/min")
    fast = registry.add_task(send, name="mail.fast", rate="9/min")
    assert slow.key_rule == KeyRule(slow.key({}), None, Rate(1, 60))
    assert fast.key_rule == KeyRule(fast.key({}), None, Rate(9, 60))
    assert slow.key({}) != fast.key({})
    assert (
        registry.add_task(send, name="a:{customer_id}", concurrency=1).key({"customer_id": 7})
        == "task.a.(customer_id)"
    )


def test_two_tasks_that_limit_the_same_keys_differently_are_refused_by_name() -> None:
    registry = Registry()
    registry.add_task(send, name="one", concurrency_key="customer:{customer_id}", concurrency=2)
    registry.add_task(send, name="two", concurrency_key="customer:{card}", concurrency=2)
    for options in (
        {"concurrency_key": "customer:{card}", "concurrency": 3},
        {"concurrency_key": "customer", "rate": "1/s", "concurrency": 2},
        {"tenant": "customer:{card}"},
    ):
        with pytest.raises(
            TaskError, match=r"the tasks one \(.*\) and three \(.*\) set different limits .* customer:"
        ):
            registry.add_task(send, name="three", **options)  # type: ignore[arg-type]
    assert set(registry.tasks) == {"one", "two"}
    registry.add_task(send, name="two", tenant="shop:{card}")
    registry.tasks.pop("one")
    for concurrency in (7, 8):
        registry.add_task(send, name="two", concurrency_key="customer:{card}", concurrency=concurrency)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"queu": "mail"}, "there is no option queu; is queue meant"),
        ({"queue": ""}, "queue is a name"),
        ({"queue": 1}, "queue is a name"),
        ({"max_attempts": 0}, "max_attempts is a whole number from 1"),
        ({"max_attempts": True}, "max_attempts is a whole number"),
        ({"max_attempts": 2**15}, "max_attempts"),
        ({"priority": 40_000}, "priority is a whole number from -32768 to 32767"),
        ({"priority": 1.5}, "priority"),
        ({"timeout": 0}, "timeout is seconds above 0"),
        ({"timeout": float("nan")}, "timeout is seconds"),
        ({"timeout": "1s"}, "timeout is seconds"),
        ({"expires": -1}, "expires is seconds above 0"),
        ({"expires": float("inf")}, "expires"),
        ({"backoff": 3}, "backoff is a Backoff or a function"),
        ({"backoff": Backoff.fixed}, None),
        ({"backoff": Backoff}, "backoff is a Backoff or a function"),
        ({"concurrency": 0}, "concurrency is a whole number"),
        ({"concurrency_key": "customer:{customer}"}, "concurrency_key names customer, which is no argument"),
        ({"concurrency_key": "customer:{job}"}, "concurrency_key names job"),
        ({"concurrency_key": "{customer_id}"}, "is to begin with a word of its own"),
        ({"concurrency_key": ":x"}, "is to begin with a word of its own"),
        ({"concurrency_key": "customer:{customer_id"}, "is no template"),
        ({"concurrency_key": "customer:{}"}, "is not the name of an argument"),
        ({"concurrency_key": ""}, "is no template"),
        ({"concurrency_key": 7}, "concurrency_key is a text"),
        ({"concurrency_key": "c" * 201}, "longer than 200"),
        ({"tenant": "{customer_id}"}, "is to begin with a word"),
        ({"tenant": "shop:{x}"}, "tenant names x"),
        ({"tenant": "shop", "concurrency_key": "shop"}, "tenant gives turns and no limit"),
        ({"tenant": "shop", "rate": "1/s"}, "tenant gives turns and no limit"),
        ({"tenant": "shop", "concurrency": 1}, "tenant gives turns and no limit"),
        ({"rate": "10"}, "'10' is no rate"),
        ({"rate": 10}, "rate is a text"),
        ({"rate": "1/s", "name": "n" * 199}, "longer than 200 characters; shorten its name"),
        ({"name": "n" * 501}, "its name is longer than 500"),
        ({"unique": True}, "unique is Unique"),
        ({"unique": Unique(by="{order}")}, "unique names order"),
        ({"batch": 0}, "batch is a whole number"),
        ({"batch_wait": 1}, "batch_wait needs batch"),
        ({"batch": 10}, "takes the list of jobs alone"),
        ({"process": 1}, "process is True or False"),
        ({"encrypt": "yes"}, "encrypt is True or False"),
        ({"redact": "card"}, "redact is a tuple"),
        ({"redact": ("cart",)}, "redact names cart"),
        ({"redact": ("cart.number",)}, "redact names cart"),
        ({"redact": ("card.number", "*")}, None),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_meant_is_refused_with_the_place_of_the_function(
    options: dict[str, Any], problem: str | None
) -> None:
    if problem is None:
        defined(**options)
        return
    with pytest.raises(TaskError) as raised:
        defined(**options)
    assert problem in raised.value.message
    assert "test_definition.py:" in raised.value.message


def test_functions_that_cannot_be_tasks_are_refused() -> None:
    def no_job() -> None: ...

    def only_named(*, job: Job) -> None: ...

    def positional(job: Job, x: int, /) -> None: ...

    async def stream(job: Job) -> Any:
        yield 1

    def local(job: Job) -> None: ...

    def many(jobs: list[Job]) -> None: ...

    for function, options, problem in (
        (no_job, {}, "takes no job"),
        (only_named, {}, "takes no job"),
        (no_job, {"batch": 5}, "takes no list of jobs"),
        (positional, {}, "before the /"),
        (stream, {}, "is a generator"),
        (local, {"process": True}, "at the top of a module"),
        (many, {"batch": 2, "process": True}, "do not go together"),
    ):
        with pytest.raises(TaskError, match=problem):
            defined(function, **options)
    assert defined(many, batch=5, batch_wait=0).batch == 5
    assert defined(many, batch=5, concurrency_key="shop:{id}").key({"id": 3}) == "shop:3"


def test_an_object_that_is_awaited_when_it_is_called_is_async() -> None:
    class Send:
        async def __call__(self, job: Job, order_id: int) -> None: ...

    task = defined(Send())
    assert task.is_async
    with pytest.raises(TaskError, match="order_id: expected `int`, got `str`"):
        task.check({"order_id": "7"})


def test_a_key_that_cannot_be_made_is_refused_with_the_arguments() -> None:
    async def loose(job: Job, customer_id: Any) -> None: ...

    for options in ({"concurrency_key": "customer:{customer_id}"}, {"unique": Unique(by="{customer_id}")}):
        task = defined(loose, **options)
        task.check({"customer_id": "x" * 180})
        with pytest.raises(TaskError, match="has .* characters"):
            task.check({"customer_id": "x" * 201})
        with pytest.raises(TaskError, match="the argument customer_id cannot be part of the key"):
            task.check({"customer_id": [7]})
