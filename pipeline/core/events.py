"""What travels on the feed.

Owns: the wire form of events and batches, and the tags that an event touches. Knows no database.

One user statement makes one event. The pump packs events into batches, numbers the batches densely and
broadcasts each as one NOTIFY payload of readable JSON, below Postgres's limit of 8,000 bytes:

    {"e":"5f3a…","s":42,"p":41,"at":"740:742:","v":[[741,"orders","u",["7"],1,0.8]]}

A batch whose `p` is not the last `s` that a follower saw means that it missed something. A batch of no events
is a beat. `at` is the position that the feed has reached; only the last batch of a round carries it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

PAYLOAD_BYTES = 7_900  # Postgres refuses 8,000 and more, and counts bytes, not characters

Op = Literal["i", "u", "d", "t", "e", "w"]
OP_NAMES: dict[str, str] = {
    "i": "insert",
    "u": "update",
    "d": "delete",
    "t": "truncate",
    "e": "emit",
    "w": "whole",  # the table changed in a way that no statement tells: DDL, a partition attached
}


class Event(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One statement's change to one watched table, or one `pipeline.emit`.

    xid: the writing transaction. name: the tag of the table, or the channel of an emit.
    op: see OP_NAMES. keys: the distinct keys touched, old and new; None means the whole table.
    rows: how many rows the statement touched. ms: how long it took, where timing is on.
    payload: what `pipeline.emit` was given. at: when it was written, Unix seconds by the server's clock.
    """

    xid: int
    name: str
    op: Op
    keys: tuple[str, ...] | None = None
    rows: int = 0
    ms: float | None = None
    payload: str | None = None
    at: float | None = None

    def tags(self) -> Iterator[str]:
        """The tags that this event makes stale, the narrow ones (`orders:42`) first."""
        if self.op == "e":
            return
        for key in self.keys or ():
            yield f"{self.name}:{key}"
        yield self.name


_SHORT = {"epoch": "e", "seq": "s", "previous": "p", "position": "at", "events": "v", "flush": "f"}


class Batch(msgspec.Struct, frozen=True, rename=_SHORT, omit_defaults=True):
    """One broadcast: numbered, with the events and, on the last of a round, the position reached.

    flush: something was lost that cannot be named (the outbox passed its bound); drop everything.
    """

    epoch: str
    seq: int
    previous: int
    position: str | None = None
    events: tuple[Event, ...] = ()
    flush: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Batch)


def encode(batch: Batch) -> str:
    """The NOTIFY payload of a batch."""
    return _encoder.encode(batch).decode()


def decode(payload: str) -> Batch:
    """The batch of a NOTIFY payload. Raises msgspec.DecodeError on anything else."""
    return _decoder.decode(payload)
