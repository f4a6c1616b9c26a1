"""Tells a CDN, or another cache in front, which groups have ended.

Owns: what is asked for, in which form, and that it is asked for until it was accepted. Speaks no HTTP itself:
it is handed a function that does.

The consumer only enqueues jobs, so that a receiver that is away for hours holds up nobody: jobs are retried with
growing pauses, outlive every crash, and are dead-lettered where everybody sees it.

Each group is asked for twice. The first time at once; but a process that has not heard of the change may answer
with a value from before for up to `max_staleness`, and the cache in front would keep that for as long as its
headers say. So it is asked again when that time, and one for making a response, is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from pipeline.core.events import Event
from pipeline.core.groups import EVERYTHING, ended_by, widened
from pipeline.core.job import Job
from pipeline.core.outgoing import NoAnswer, Post
from pipeline.core.retry import Backoff
from pipeline.errors import PgreflexError
from pipeline.registry import Registry

PURGE = "pgreflex.purge"
QUEUE = "pgreflex.purge"
MOST_GROUPS = 1_000  # of one job; more changes than that in a tenth of a second widen to whole tables
GROUPS_A_POST = 100  # the most that common CDNs take at once
PAUSE_SECONDS = 0.1
RESPONSE_SECONDS = 1.0  # that making a response takes, from the first value that is read for it
BACKOFF = Backoff(first=1, longest=600)  # thirty attempts: four hours

Enqueue = Callable[..., Awaitable[object]]


class Receiver(msgspec.Struct, frozen=True):
    """Where to ask. headers: sent along. header: groups go into this header, apart by spaces, with an empty body;
    None: into the body, as JSON.
    """

    url: str
    headers: Mapping[str, str]
    header: str | None = None

    def __repr__(self) -> str:
        return "Receiver('***')"  # the address and the headers often hold a credential

    def request(self, groups: Sequence[str]) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one request."""
        if self.header is not None:
            return b"", {**self.headers, self.header: " ".join(groups)}
        return msgspec.json.encode({"tags": groups}), {"Content-Type": "application/json", **self.headers}


class PurgeConsumer:
    """An EventConsumer: makes two jobs of what has changed, ten times a second at most.

    max_staleness: seconds for which applications may serve what was before a change.
    """

    name = "purge"

    def __init__(self, enqueue: Enqueue, *, max_staleness: float) -> None:
        self._enqueue = enqueue
        self._settled = timedelta(seconds=max_staleness + RESPONSE_SECONDS)

    async def handle(self, events: Sequence[Event]) -> None:
        groups = widened(ended_by(events), MOST_GROUPS)
        if groups:
            await self._ask(sorted(groups))
            await asyncio.sleep(PAUSE_SECONDS)  # what comes meanwhile is handed over together

    async def missed(self, reason: str) -> None:
        """Nobody can say what has changed."""
        await self._ask([EVERYTHING])

    async def _ask(self, groups: list[str]) -> None:
        await self._enqueue(PURGE, {"groups": groups})
        await self._enqueue(PURGE, {"groups": groups}, run_at=datetime.now(UTC) + self._settled)


class Purger:
    """The task: one job posts its groups, a hundred at a time."""

    def __init__(self, receiver: Receiver, post: Post) -> None:
        self._receiver = receiver
        self._post = post

    def add_to(self, registry: Registry) -> None:
        registry.add_task(self.purge, name=PURGE, queue=QUEUE, max_attempts=30, timeout=60, backoff=BACKOFF)

    async def purge(self, job: Job, *, groups: list[str]) -> int:
        """Returns how many requests it took. Raises PgreflexError when one was not accepted: all come again."""
        posts = range(0, len(groups), GROUPS_A_POST)
        for first in posts:
            body, headers = self._receiver.request(groups[first : first + GROUPS_A_POST])
            try:
                answer = await self._post(self._receiver.url, body, headers)
            except NoAnswer as error:
                raise PgreflexError(f"the cache in front: {error}", hint="See purge.url.") from None
            if not 200 <= answer.status < 300:
                raise PgreflexError(
                    f"the cache in front answered {answer.status}", hint="See purge.url and purge.headers."
                )
        return len(posts)
