"""The places that the queues of a worker share."""

from __future__ import annotations

import asyncio

import pytest

from handlers.places import Places


async def test_a_place_that_is_left_goes_past_whoever_was_cancelled_this_moment() -> None:
    places = Places(1)
    await places.take("mail", 1)
    cancelled, next_ = (asyncio.create_task(places.take("mail", 1)) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    places.leave()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.wait_for(next_, 1)
    places.leave()
    await asyncio.wait_for(places.take("other", 1), 1)


async def test_a_place_that_came_with_a_cancellation_is_given_on() -> None:
    places = Places(1)
    await places.take("mail", 1)
    waiting = asyncio.create_task(places.take("mail", 1))
    await asyncio.sleep(0)
    places.leave()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(places.take("mail", 1), 1)
