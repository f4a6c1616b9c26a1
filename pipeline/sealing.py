"""What of a sealed job is to be seen.

Owns: the keys that are made from the arguments before they are sealed, since Postgres cannot make them after.
Knows neither the cipher nor the queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.keys import render_key
from pipeline.core.seal import Sealer
from pipeline.definition import Task


def needs_keys(task: Task) -> bool:
    """Whether its jobs are sealed and have keys that come from their arguments."""
    return task.encrypt and bool(task.key_template or task.unique)


def keys_beside(
    task: Task, args: Mapping[str, Any], encoded: bytes, sealer: Sealer, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of the SQL function `enqueue` that it would make from arguments; those that are given stay.

    encoded: the arguments as JSON. A job that is unique by all of its arguments has their fingerprint.
    """
    keys = dict(given)
    if keys["key"] is None:
        keys["key"] = task.key(args)
    unique = task.unique
    if unique is not None and keys["unique_key"] is None:
        by = sealer.fingerprint(task.name, encoded) if unique.by is None else render_key(unique.by, args)
        keys |= {
            "unique_key": f"{task.name}:{by}",
            "unique_for": unique.window,
            "unique_until": unique.until,
            "on_clash": unique.on_clash,
        }
    return keys
