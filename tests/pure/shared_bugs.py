"""Mistakes that a shared level can be built with, each as a patch of the real code or of what uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.core.cache import CacheCore
from pipeline.core.cache_shared import HandedOut, SharedRow
from pipeline.core.fill import Fence
from pipeline.core.snapshot import Snapshot
from tests.pure import shared_world
from tests.pure.cache_world import World
from tests.pure.shared_world import SharedWorld


def floor_ignored(patch: pytest.MonkeyPatch) -> None:
    """A process that has just begun takes rows that are older than what it knows of."""
    original = Fence._reaches
    patch.setattr(Fence, "_reaches", lambda self, snapshot, at: at == self._floor or original(self, snapshot, at))


def changes_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fence, "admits", lambda self, tags, snapshot: self._reaches(snapshot, self._floor))


def proof_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shared_world, "may_use", lambda core, tags, row, now: core.fence.admits(row.tags, row.snapshot))


def epoch_ignored(patch: pytest.MonkeyPatch) -> None:
    original = SharedWorld.take

    def take(self: SharedWorld, node: Any, row: Any) -> None:
        row.epoch = str(node.core.epoch)
        original(self, node, row)

    patch.setattr(SharedWorld, "take", take)


def dropped_values_shared(patch: pytest.MonkeyPatch) -> None:
    """Of what was queued, it is not asked whether it still stands in the store."""
    patch.setattr("pipeline.core.cache_shared.stands", lambda core, entry: True)


def stamped_with_now(patch: pytest.MonkeyPatch) -> None:
    """A row is said to contain what the database shows when it is written."""
    original = World.look

    def look(self: World) -> Any:
        view = original(self)
        patch.setattr(shared_world, "provable", lambda core, entry: core.position and view.snapshot)
        return view

    patch.setattr(World, "look", look)


def any_row_raised(patch: pytest.MonkeyPatch) -> None:
    """The row of a key is raised, whatever value it holds."""
    patch.setattr(SharedWorld, "is_held", lambda self, row, key, entry: row.key == key)


def recall_skips(patch: pytest.MonkeyPatch) -> None:
    """What is recalled has a gap."""
    original = SharedWorld.remembered
    patch.setattr(SharedWorld, "remembered", lambda self: (r := original(self))[:1] + r[2:])


def recall_without_its_end(patch: pytest.MonkeyPatch) -> None:
    original = SharedWorld.remembered
    patch.setattr(SharedWorld, "remembered", lambda self: original(self)[:-1])


def recall_over_a_flush(patch: pytest.MonkeyPatch) -> None:
    """What was lost is not taken for a gap when it is recalled."""
    original = CacheCore.on_recall

    def on_recall(self: CacheCore, epoch: str, batches: Any, now: float) -> None:
        original(self, epoch, [batch for batch in batches if not batch.flush], now)

    patch.setattr(CacheCore, "on_recall", on_recall)


def recall_of_other_epochs(patch: pytest.MonkeyPatch) -> None:
    """An empty memory is taken for a past without changes."""
    original = CacheCore.on_recall

    def on_recall(self: CacheCore, epoch: str, batches: Any, now: float) -> None:
        original(self, epoch, batches, now)
        if not batches:
            self.fence.on_position(Snapshot(1, 1))

    patch.setattr(CacheCore, "on_recall", on_recall)


def goes_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HandedOut, "allows", lambda self, key, row: True)


def compared_with_any_probe(patch: pytest.MonkeyPatch) -> None:
    """A row need only cover what the process asked for before it had its value."""
    original = HandedOut.had
    patch.setattr(HandedOut, "had", lambda self, key, now, row=None: original(self, key, now - 5, row))


def upper_taken_for_lower(patch: pytest.MonkeyPatch) -> None:
    """What a row surely contains is taken for all that it can contain."""

    def had(self: HandedOut, key: Any, now: float, row: SharedRow | None = None) -> None:
        original_had(self, key, now, row and msgspec.structs.replace(row, upper=row.snapshot))

    original_had = HandedOut.had
    patch.setattr(HandedOut, "had", had)


BUGS: list[Callable[[pytest.MonkeyPatch], None]] = [
    floor_ignored,
    changes_ignored,
    proof_ignored,
    epoch_ignored,
    dropped_values_shared,
    stamped_with_now,
    any_row_raised,
    recall_skips,
    recall_without_its_end,
    recall_over_a_flush,
    recall_of_other_epochs,
    goes_back,
    compared_with_any_probe,
    upper_taken_for_lower,
]
