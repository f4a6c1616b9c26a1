"""Functions registered with `@on`: which events they get, and what a failure repeats."""

from __future__ import annotations

import pytest

from handlers.events import UserConsumer
from pipeline.core.events import Event
from pipeline.registry import Consumer


class Told:
    """A function's calls; `fails_at` is the number of the call that raises, once."""

    def __init__(self, *ops: str, fails_at: int = 0) -> None:
        self.keys: list[tuple[str, ...] | None] = []
        self.calls = 0

        async def told(event: Event) -> None:
            self.calls += 1
            if self.calls == fails_at:
                raise RuntimeError("not now")
            self.keys.append(event.keys)

        self.consumer = UserConsumer(Consumer("item", ops, told, __file__))


def changes(*keys: str) -> list[Event]:
    return [Event(7, "item", "u", (key,)) for key in keys]


async def test_equal_events_of_one_transaction_are_all_delivered_also_in_equal_lists() -> None:
    told = Told()
    await told.consumer.handle(changes("1", "1"))
    await told.consumer.handle(changes("1", "1"))
    assert told.keys == [("1",)] * 4


async def test_after_a_failure_what_was_done_is_not_repeated() -> None:
    told, events = Told(fails_at=2), changes("1", "2", "3")
    with pytest.raises(RuntimeError):
        await told.consumer.handle(events)
    await told.consumer.handle(events)
    assert told.keys == [("1",), ("2",), ("3",)]


async def test_only_what_was_asked_for_is_delivered() -> None:
    told = Told("insert")
    await told.consumer.handle([Event(7, "item", "i", ("1",)), *changes("2"), Event(7, "other", "i", ("3",))])
    assert told.keys == [("1",)]
