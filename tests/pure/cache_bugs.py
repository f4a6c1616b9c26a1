"""Mistakes that a cache like this one can be built with, each as a patch of the real code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.core import fill
from pipeline.core.cache import CacheCore
from pipeline.core.fill import Fence, Flight, Verdict
from pipeline.core.freshness import Freshness, Probe
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Store
from pipeline.core.tags import TagIndex
from tests.pure.cache_world import World


def fence_off(patch: pytest.MonkeyPatch) -> None:
    """Changes that come while a value is loading are not held against it."""
    original = Fence.judge

    def judge(self: Fence, flight: Flight, tags: Any, snapshot: Snapshot | None) -> Verdict:
        verdict = original(self, flight, tags, snapshot)
        return Verdict.STORED if verdict is Verdict.CHANGED else verdict

    patch.setattr(Fence, "judge", judge)


def join_after_detach(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fence, "detached", lambda self, flight: flight.generation != self.generation)


def past_changes_ignored(patch: pytest.MonkeyPatch) -> None:
    """Only what came during the load counts."""
    original = Fence.judge

    def judge(self: Fence, flight: Flight, tags: Any, snapshot: Snapshot | None) -> Verdict:
        verdict = original(self, flight, tags, snapshot)
        return Verdict.STORED if verdict is Verdict.OLD else verdict

    patch.setattr(Fence, "judge", judge)


def stamp_after_read(patch: pytest.MonkeyPatch) -> None:
    """A load is registered when it ends."""
    original = CacheCore.finish

    def finish(self: CacheCore, flight: Flight, value: Any, **rest: Any) -> Verdict:
        self.fence.begin(flight, rest["now"])
        return original(self, flight, value, **rest)

    patch.setattr(CacheCore, "finish", finish)


def probe_stamped_at_answer(patch: pytest.MonkeyPatch) -> None:
    original = Freshness.answered

    def answered(self: Freshness, t0: float, probe: Probe) -> None:
        original(self, World.now_of_all, probe)

    patch.setattr(Freshness, "answered", answered)


def swallow_own_change(patch: pytest.MonkeyPatch) -> None:
    """After an invalidation of one's own, the changes of that tag in the next round are taken for its
    echo.
    """
    original = CacheCore.change

    def change(self: Any, tag: str, xid: int | None, now: float) -> None:
        echoes = self.__dict__.setdefault("echoes", {})
        if xid is None:
            echoes[tag] = self.fence._round
        elif echoes.get(tag) == self.fence._round:
            return
        original(self, tag, xid, now)

    patch.setattr(CacheCore, "change", change)


def extended_at_receipt(patch: pytest.MonkeyPatch) -> None:
    original = Freshness._extend

    def extend(self: Freshness) -> None:
        before = self.valid_until
        original(self)
        if self.valid_until != before:
            self.valid_until = World.now_of_all + self.max_staleness

    patch.setattr(Freshness, "_extend", extend)


def extended_before_covered(patch: pytest.MonkeyPatch) -> None:
    """A position is taken to cover a probe by its xmax alone."""
    patch.setattr(Snapshot, "covers", lambda self, other: self.xmax >= other.xmax)


def running_taken_for_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Snapshot, "sees", lambda self, xid: xid < self.xmax)


def flush_keeps_flights(patch: pytest.MonkeyPatch) -> None:
    original = Fence.flush

    def flush(self: Fence) -> None:
        generation = self.generation
        original(self)
        self.generation = generation

    patch.setattr(Fence, "flush", flush)


def flush_forgets_its_floor(patch: pytest.MonkeyPatch) -> None:
    original = Fence.flush

    def flush(self: Fence) -> None:
        original(self)
        self._floor = -1
        self._rounds, self._positions = [0], [Snapshot(1, 1)]

    patch.setattr(Fence, "flush", flush)


def flush_keeps_entries(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "end_every", lambda self, at, now, cause: 0)


def epoch_ignored(patch: pytest.MonkeyPatch) -> None:
    original = CacheCore.on_batch

    def on_batch(self: CacheCore, batch: Any, now: float) -> None:
        self._epoch = batch.epoch
        original(self, batch, now)

    patch.setattr(CacheCore, "on_batch", on_batch)


def key_spares_table(patch: pytest.MonkeyPatch) -> None:
    """A change of one row does not touch what depends on the whole table."""
    original = TagIndex.touched

    def touched(self: TagIndex[Any], tag: str) -> set[Any]:
        return {
            entry for entry in original(self, tag) if any(f"{one}:".startswith(f"{tag}:") for one in entry.tags)
        }

    patch.setattr(TagIndex, "touched", touched)


def table_spares_keys(patch: pytest.MonkeyPatch) -> None:
    """A change of unknown extent does not touch what depends on one row."""
    original = TagIndex.touched

    def touched(self: TagIndex[Any], tag: str) -> set[Any]:
        return {entry for entry in original(self, tag) if not any(one.startswith(f"{tag}:") for one in entry.tags)}

    patch.setattr(TagIndex, "touched", touched)


def only_newest_remembered(patch: pytest.MonkeyPatch) -> None:
    """A slot keeps its last transaction and forgets that there were others."""
    original = Fence._reaches
    patch.setattr(fill, "XIDS_KEPT", 1)
    patch.setattr(Fence, "_reaches", lambda self, snapshot, _round: original(self, snapshot, self._floor))


def served_without_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheCore, "read", lambda self, key, now: self.store.entries.get(key))


def old_load_joined_without_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheCore, "may_join", lambda self, flight, now: not self.fence.detached(flight))


def late_tags_shared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheCore, "may_share", lambda self, flight, verdict, joined: verdict is not Verdict.OLD)


def old_reads_shared(patch: pytest.MonkeyPatch) -> None:
    original = CacheCore.may_share

    def may_share(self: CacheCore, flight: Flight, verdict: Verdict, joined: int) -> bool:
        return verdict is Verdict.OLD or original(self, flight, verdict, joined)

    patch.setattr(CacheCore, "may_share", may_share)


BUGS: list[Callable[[pytest.MonkeyPatch], None]] = [
    fence_off,
    join_after_detach,
    past_changes_ignored,
    stamp_after_read,
    probe_stamped_at_answer,
    swallow_own_change,
    extended_at_receipt,
    extended_before_covered,
    running_taken_for_ended,
    flush_keeps_flights,
    flush_forgets_its_floor,
    flush_keeps_entries,
    epoch_ignored,
    key_spares_table,
    table_spares_keys,
    only_newest_remembered,
    served_without_proof,
    old_load_joined_without_proof,
    late_tags_shared,
    old_reads_shared,
]
