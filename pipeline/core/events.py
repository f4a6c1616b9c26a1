"""What travels on the feed.

Owns: events, batches, their wire form, and the tags that an event touches. Knows no database.

One user statement makes one event. The pump packs events into batches, numbers the batches densely and
broadcasts each as one NOTIFY payload of readable JSON, below Postgres's limit of 8,000 bytes:

    {"e":"5f3a90c1d2e4","s":42,"p":41,"at":"740:742:","n":["orders"],"v":[[741,0,"u",["7"],1,0.8]]}

`v` holds the events, each with the transaction, the place of its name in `n`, the operation, the keys, the
rows, the milliseconds and the payload; what is missing at the end has its default. A batch whose `p` is not
the last `s` that a follower saw means that it missed something. A batch without events is a beat. `at` is the
position that the feed has reached; only the last batch of a round carries it. `r` says that the batch was too
long for NOTIFY and has to be read from the ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

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


class Event(msgspec.Struct, frozen=True):
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
    rows: int = 1
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

    def changed(self) -> Iterator[str]:
        """The narrowest tags that changed: one for each key, or the table's where the keys are unknown."""
        if self.op == "e":
            return
        if self.keys:
            for key in self.keys:
                yield f"{self.name}:{key}"
        else:
            yield self.name


class Batch(msgspec.Struct, frozen=True):
    """One broadcast: numbered, with the events and, on the last of a round, the position reached.

    flush: something was lost that cannot be named (the outbox passed its bound); drop everything.
    in_ring: the events did not fit into NOTIFY; read this batch from the ring.
    """

    epoch: str
    seq: int
    previous: int
    position: str | None = None
    events: tuple[Event, ...] = ()
    flush: bool = False
    in_ring: bool = False


class _Wire(msgspec.Struct, omit_defaults=True):
    e: str
    s: int
    p: int
    at: str | None = None
    n: list[str] = []
    v: list[list[Any]] = []
    f: bool = False
    r: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Wire)
_DEFAULTS = (None, 1, None, None)  # of keys, rows, ms and payload


def encode(batch: Batch) -> str:
    """The wire form of a batch."""
    names: dict[str, int] = {}
    rows = [_row(event, names.setdefault(event.name, len(names))) for event in batch.events]
    wire = _Wire(
        batch.epoch, batch.seq, batch.previous, batch.position, list(names), rows, batch.flush, batch.in_ring
    )
    return _encoder.encode(wire).decode()


def decode(payload: str) -> Batch:
    """The batch of a wire form. Raises msgspec.DecodeError on anything else."""
    wire = _decoder.decode(payload)
    events = tuple(_event(row, wire.n) for row in wire.v)
    return Batch(wire.e, wire.s, wire.p, wire.at, events, wire.f, wire.r)


def notice(batch: Batch, encoded: str) -> str:
    """What NOTIFY says for a batch: the batch itself, or where to find it when it is too long."""
    if len(encoded.encode()) <= PAYLOAD_BYTES:
        return encoded
    return encode(Batch(batch.epoch, batch.seq, batch.previous, batch.position, in_ring=True))


def pack(events: Sequence[Event], *, epoch: str, after: int, position: str | None) -> list[Batch]:
    """Split events into batches that fit into NOTIFY; the last one carries the position.

    after: the number of the last batch before these. No events make no batch.
    """
    batches: list[Batch] = []
    start, size, names = 0, _ENVELOPE_BYTES + len(position or ""), set[str]()
    for place, event in enumerate(events):
        need = _size(event) + (0 if event.name in names else len(event.name.encode()) + 3)
        if size + need > PAYLOAD_BYTES and place > start:
            seq = after + len(batches) + 1
            batches.append(Batch(epoch, seq, seq - 1, None, tuple(events[start:place])))
            start, size, names = place, _ENVELOPE_BYTES + len(position or ""), set()
            need = _size(event) + len(event.name.encode()) + 3
        names.add(event.name)
        size += need
    if events:
        seq = after + len(batches) + 1
        batches.append(Batch(epoch, seq, seq - 1, position, tuple(events[start:])))
    return batches


_ENVELOPE_BYTES = 160  # {"e":…,"s":…,"p":…,"at":"…","n":[],"v":[],"f":true} with 20 digit numbers


def _size(event: Event) -> int:
    """The bytes of an event's wire form, behind up to 1,000 names."""
    return len(_encoder.encode(_row(event, 999))) + 1


def _row(event: Event, name: int) -> list[Any]:
    ms = None if event.ms is None else round(event.ms, 3)
    row = [event.xid, name, event.op, event.keys, event.rows, ms, event.payload]
    while len(row) > 3 and row[-1] == _DEFAULTS[len(row) - 4]:
        row.pop()
    return row


def _event(row: list[Any], names: list[str]) -> Event:
    xid, name, op, *rest = row
    keys, rows, ms, payload = rest + list(_DEFAULTS[len(rest) :])
    return Event(xid, names[name], op, None if keys is None else tuple(keys), rows, ms, payload)
