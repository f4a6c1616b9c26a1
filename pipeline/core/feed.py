"""What the feed asks of those who listen to it.

Owns: the kinds of listener. Knows neither how batches travel nor what is done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pipeline.core.events import Batch, Event
from pipeline.core.snapshot import Snapshot


class FeedSink(Protocol):
    """Hears everything in every process, in order, at once; must return quickly and must not raise.

    A cache is one. What it hears is at least once: after a reconnect a batch may come again.
    """

    def on_batch(self, batch: Batch) -> None:
        """Some events, in the order of the feed; perhaps none (a beat)."""

    def on_position(self, position: Snapshot) -> None:
        """Everything that `position` sees has been delivered by `on_batch`."""

    def on_flush(self, reason: str) -> None:
        """Events may have been missed: forget whatever an event could have changed."""

    def on_down(self, reason: str) -> None:
        """The feed is interrupted; nothing is known until the next `on_flush` or `on_batch`."""


@runtime_checkable
class Recalls(Protocol):
    """A FeedSink that also wants to know, after a flush, what the feed still remembers of the time before."""

    def on_recall(self, epoch: str, batches: Sequence[Batch]) -> None:
        """The feed has this epoch, and these are its last batches, without a gap and oldest first; perhaps none.

        They end where the feed goes on. Where one carries a position, everything that the position sees came in
        it or before it, and everything else comes behind it.
        """


class EventConsumer(Protocol):
    """Handles every event at least once, in one process of all: the one that leads.

    The feed's place is saved after `handle` has returned; when it raises, the same events come again.
    """

    @property
    def name(self) -> str: ...

    async def handle(self, events: Sequence[Event]) -> None:
        """Take the events in; raise to see them again."""

    async def missed(self, reason: str) -> None:
        """Events were lost that cannot be named (a crash of the server, the outbox's bound)."""
