"""Functions whose results are cached.

Owns: the decorator. Knows neither how the cache works nor which one is meant: it is told at each call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from msgspec import structs

from handlers.cache_keys import Call, Tags, tag_set
from handlers.cache_scope import scope_of_request
from pipeline.core.cache_policy import Options, Policy
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from handlers.cache import Cache

T = TypeVar("T")
P = ParamSpec("P")


def cached_by(
    find: Callable[[], Cache | None], *, tags: Tags, key: Callable[..., Hashable] | None, options: Options
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Cache what an async function returns in the cache that `find` gives at each call; None: call it."""
    Policy.of(options, "", own=True)

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        call = Call(function, tag_set(tags), key)
        policy = _policy(call, options)

        async def cached_call(*args: P.args, **kwargs: P.kwargs) -> T:
            cache = find()
            if cache is None:
                return await function(*args, **kwargs)
            its_key = call.key(args, kwargs)
            if scope_of_request.get() is None:
                entry = cache.core.read(its_key, cache._clock())
                if entry is not None:
                    return entry.value  # type: ignore[no-any-return]
            return await cache._loads.get(  # type: ignore[no-any-return]
                its_key, lambda: function(*args, **kwargs), call.tags(args, kwargs), policy
            )

        return call.dressed(cached_call)

    return decorate


def _policy(call: Call, options: Options) -> Policy:
    policy = Policy.of(options, call.name, own=True)
    if call.has_name or options.get("namespace"):
        return policy
    if policy.shared:
        raise UsageError(
            f"{call.name} has no name that other processes would know, so they cannot share its values",
            hint="Add namespace=..., or move the function to the top of a module.",
        )
    return structs.replace(policy, shared=False)
