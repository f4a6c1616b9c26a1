"""How long a value is good for, and what may be done with it after that.

Owns: the options of one read or one cached function, checked once. Knows neither values nor when it is now.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from datetime import timedelta
from typing import Literal, TypeAlias, TypedDict

import msgspec

from pipeline.core.cachekey import seconds
from pipeline.errors import UsageError

Span: TypeAlias = "float | str | timedelta"
Copy = Literal["share", "deep"]
JITTER = 0.1


class Options(TypedDict, total=False):
    """What `query`, `get_or_load` and `cached` take besides tags. Spans are seconds, "30s", "5m" or a timedelta.

    ttl: how long the value is good for; None, until something changes. jitter: up to this share of the ttl is
    taken off, differently for each value, so that what was loaded together does not end together. negative_ttl:
    in place of `ttl` for None and for what is empty. early: beta of XFetch; above 0 a value that is read often
    is loaded anew a little before its ttl ends, the sooner the longer its load takes; 1.0 is usual.
    stale_while_revalidate: for how long a value that is no longer good is still served, flagged as stale, while
    one load replaces it. stale_if_error: for how long it is served when its load fails. shared: keep it in the
    database's table, too, for all processes; None: as the configuration says. namespace: what it is counted and
    bounded with. max_bytes, max_entries: bounds of the namespace. copy: "share" hands the same object to
    everybody, "deep" a copy of his own to each. check: whether a sample of hits is loaded again, to see that they
    were right; None: where the load tells that it reads this database.
    """

    ttl: Span | None
    jitter: float
    negative_ttl: Span | None
    early: float
    stale_while_revalidate: Span
    stale_if_error: Span
    shared: bool | None
    namespace: str | None
    max_bytes: int | None
    max_entries: int | None
    copy: Copy
    check: bool | None


class Policy(msgspec.Struct, frozen=True):
    """Options, checked; spans are seconds. See Options for what each means."""

    ttl: float | None = None
    jitter: float = JITTER
    negative_ttl: float | None = None
    early: float = 0.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    shared: bool | None = None
    namespace: str | None = None
    max_bytes: int | None = None
    max_entries: int | None = None
    copy: Copy = "share"
    check: bool | None = None

    @classmethod
    def of(cls, options: Options, namespace: str, *, own: bool = False) -> Policy:
        """Raises UsageError for an option that does not exist or makes no sense.

        namespace: the one where the options name none. own: it is the caller's alone, so that bounds hold for it.
        """
        unknown = options.keys() - set(cls.__struct_fields__)
        if unknown:
            raise UsageError(
                f"the cache knows no option {', '.join(sorted(unknown))}",
                hint=f"Options are: tags, key, {', '.join(cls.__struct_fields__)}.",
            )
        policy = cls(
            ttl=seconds(options.get("ttl")),
            jitter=options.get("jitter", JITTER),
            negative_ttl=seconds(options.get("negative_ttl")),
            early=options.get("early", 0.0),
            stale_while_revalidate=seconds(options.get("stale_while_revalidate")) or 0.0,
            stale_if_error=seconds(options.get("stale_if_error")) or 0.0,
            shared=options.get("shared"),
            namespace=options.get("namespace") or namespace,
            max_bytes=options.get("max_bytes"),
            max_entries=options.get("max_entries"),
            copy=options.get("copy", "share"),
            check=options.get("check"),
        )
        if not 0 <= policy.jitter <= 1:
            raise UsageError(f"a jitter of {policy.jitter} cannot be meant", hint="It is a share, 0 to 1.")
        if not policy.early >= 0:
            raise UsageError(f"early={policy.early} cannot be meant", hint="0 is off, 1.0 is usual.")
        if policy.copy not in ("share", "deep"):
            raise UsageError(f"copy={policy.copy!r} cannot be meant", hint='It is "share" or "deep".')
        bounded = policy.max_bytes is not None or policy.max_entries is not None
        if bounded and not own and not options.get("namespace"):
            raise UsageError("bounds without a namespace would hold for all others, too", hint="Add namespace=...")
        return _one_of_each(policy)

    @property
    def outlives(self) -> float:
        """For how many seconds a value that is no longer good is of use."""
        return max(self.stale_while_revalidate, self.stale_if_error)


@functools.lru_cache(maxsize=256)
def _one_of_each(policy: Policy) -> Policy:
    """The same object for equal policies: each entry refers to one, and it would be a tenth of a small entry."""
    return policy


PLAIN = Policy()


class QueryTags(msgspec.Struct, frozen=True):
    """What a query depends on: tags, and the part of its key that says under which role and settings it runs."""

    tags: frozenset[str]
    key: Hashable = None
