"""Keys of a cached function's calls: the quick way for plain arguments makes the same ones as the general way."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.cache_keys import Call


async def load(first: Any, second: Any = 2) -> None:
    """What is cached."""


KEYS = Call(load, frozenset())
PLAIN: list[Any] = [1, "1", None, 0, "", 2**70]
OTHERS: list[Any] = [True, 1.0, b"1", [1]]


@pytest.mark.parametrize("value", PLAIN + OTHERS)
def test_however_a_call_is_written_it_has_one_key(value: Any) -> None:
    assert KEYS.key((value, 2), {}) == KEYS.key((value,), {}) == KEYS.key((), {"second": 2, "first": value})


def test_arguments_that_are_equal_but_not_alike_have_different_keys() -> None:
    keys = {KEYS.key((value, 2), {}) for value in [1, True, 1.0, "1", b"1", None]}
    assert len(keys) == 6
