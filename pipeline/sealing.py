"""What of a job's arguments is to be seen beside them.

Owns: the keys that are made from them, before they are sealed, since Postgres cannot make them after.
Knows neither the cipher nor the queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.keys import render_key
from pipeline.core.seal import Sealer
from pipeline.definition import Task


def keys_beside(
    task: Task, args: Mapping[str, Any], encoded: bytes, sealer: Sealer, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of the SQL function `enqueue` that it would make from arguments; those that are given stay.

    encoded: the arguments as JSON. Of a job that is unique by all of its arguments Postgres makes the key, or if
    they are sealed, their fingerprint is the key.
    """
    keys = dict(given)
    if keys["key"] is None:
        keys["key"] = task.key(args) or None
    unique = task.unique
    if unique is not None and keys["unique_key"] is None:
        if unique.by is not None:
            key = f"{task.name}:{render_key(unique.by, args)}"
        else:
            key = f"{task.name}:{sealer.fingerprint(task.name, encoded)}" if task.encrypt else "*"
        keys |= {
            "unique_key": key,
            "unique_for": unique.window,
            "unique_states": unique.states,
            "on_clash": unique.on_clash,
        }
    return keys
