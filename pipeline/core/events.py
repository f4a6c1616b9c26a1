"""What travels on the feed.

Owns: events, batches, their wire form, and the tags that an event touches. Knows no database.

One user statement makes one event. The pump packs events into batches, numbers the batches densely and
broadcasts each as one NOTIFY payload of readable JSON, below Postgres's limit of 8,000 bytes:

    {"e":"5f3a90c1d2e4","s":42,"p":41,"at":"740:742:","w":24190976,"x":741,"n":["orders"],"v":[[0,0,"u",["7"],1,0.8]]}

`v` holds the events, each with its transaction less `x`, the place of its name in `n`, the operation, the keys,
the rows, the milliseconds and the payload; what is missing at the end has its default. A batch whose `p` is not
the last `s` that a follower saw means that it missed something. A batch without events is a beat. `at` is the
position that the feed has reached; only the last batch of a round carries it. `w`, beside `at`, is the place in
the primary's log, in bytes, before which everything lies that the position sees. `r` says that the batch was too
long for NOTIFY and has to be read from the ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

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
    in_ring: the events did not fit into NOTIFY; read this batch from the ring. wal: see Position.
    """

    epoch: str
    seq: int
    previous: int
    position: str | None = None
    events: tuple[Event, ...] = ()
    flush: bool = False
    in_ring: bool = False
    wal: int | None = None


class _Wire(msgspec.Struct, omit_defaults=True):
    e: str
    s: int
    p: int
    at: str | None = None
    w: int | None = None
    x: int = 0
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
    first = batch.events[0].xid if batch.events else 0
    rows = [_row(event, first, names.setdefault(event.name, len(names))) for event in batch.events]
    wire = _Wire(
        batch.epoch,
        batch.seq,
        batch.previous,
        batch.position,
        batch.wal,
        first,
        list(names),
        rows,
        batch.flush,
        batch.in_ring,
    )
    return _encoder.encode(wire).decode()


def decode(payload: str) -> Batch:
    """The batch of a wire form. Raises msgspec.DecodeError on anything else."""
    wire = _decoder.decode(payload)
    try:
        events = tuple(_event(row, wire.x, wire.n) for row in wire.v)
    except (TypeError, ValueError, IndexError) as error:  # anybody who may connect may NOTIFY anything
        raise msgspec.DecodeError(f"no event of the feed: {error}") from error
    return Batch(wire.e, wire.s, wire.p, wire.at, events, wire.f, wire.r, wire.w)


class Line(NamedTuple):
    """An event on its way out: the transaction, the name, and the wire form of what comes behind the name.

    Postgres writes `tail` itself (sql/feed/read.sql), so that the pump need not take events apart.
    """

    xid: int
    name: str
    tail: str


class Parcel(NamedTuple):
    """A batch on its way out: its number, how many events it holds, its wire form, and what NOTIFY says."""

    seq: int
    events: int
    payload: str
    notice: str


def pack(
    lines: Sequence[Line], *, epoch: str, after: int, position: str | None, wal: int | None = None
) -> list[Parcel]:
    """Pack events into batches that fit into NOTIFY; the last one carries the position, and its place in the log.

    after: the number of the last batch before these. No events make no batch. An event that is too long by
    itself is a batch whose NOTIFY only says where to find it.
    """
    parcels: list[Parcel] = []
    rows: list[str] = []
    names: dict[str, int] = {}
    room = PAYLOAD_BYTES - _ENVELOPE_BYTES - len(position or "")
    first = size = 0
    for xid, name, tail in lines:
        # 6: a bracket, three commas and the name's place, of which a batch has at most two digits; a character of
        # a name takes six bytes at most
        first = first if rows else xid
        need = len(str(xid - first)) + 6 + (len(tail) if tail.isascii() else len(tail.encode()))
        if name not in names:
            need += 6 * len(name) + 3
        if size + need > room and rows:
            parcels.append(_parcel(epoch, after + len(parcels) + 1, None, None, first, names, rows))
            rows, names, first, size = [], {}, xid, 0
        rows.append(f"[{xid - first},{names.setdefault(name, len(names))},{tail}")
        size += need
    if rows:
        parcels.append(_parcel(epoch, after + len(parcels) + 1, position, wal, first, names, rows))
    return parcels


_ENVELOPE_BYTES = 180  # {"e":"…","s":…,"p":…,"at":"…","w":…,"x":…,"n":[],"v":[]} with 19 digit numbers


def _parcel(
    epoch: str,
    seq: int,
    position: str | None,
    wal: int | None,
    first: int,
    names: dict[str, int],
    rows: list[str],
) -> Parcel:
    at = "" if position is None else f',"at":"{position}"'
    if position is not None and wal is not None:
        at += f',"w":{wal}'
    known = _encoder.encode(list(names)).decode()
    payload = f'{{"e":"{epoch}","s":{seq},"p":{seq - 1}{at},"x":{first},"n":{known},"v":[{",".join(rows)}]}}'
    if len(payload.encode()) > PAYLOAD_BYTES:
        return Parcel(seq, len(rows), payload, encode(Batch(epoch, seq, seq - 1, position, in_ring=True, wal=wal)))
    return Parcel(seq, len(rows), payload, payload)


def _row(event: Event, first: int, name: int) -> list[Any]:
    ms = None if event.ms is None else round(event.ms, 3)
    row = [event.xid - first, name, event.op, event.keys, event.rows, ms, event.payload]
    while len(row) > 3 and row[-1] == _DEFAULTS[len(row) - 4]:
        row.pop()
    return row


def _event(row: list[Any], first: int, names: list[str]) -> Event:
    xid, name, op, *rest = row
    keys, rows, ms, payload = rest + list(_DEFAULTS[len(rest) :])
    return Event(first + xid, names[name], op, None if keys is None else tuple(keys), rows, ms, payload)
