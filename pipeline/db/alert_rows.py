"""The rows of alerts: instances as they are read, and what judging made of them as it is written.

Owns: the form of alert_state and alert_history. Must not know who judges, or why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.core.alert import Life, Policy, State
from pipeline.core.alert_rule import Alert, Judged, Rule
from pipeline.db.connection import Connection, Record
from pipeline.db.statements import statement

SLICE = (
    1_000  # instances in one statement: about 500 kB of JSON, and 50 ms in which nothing else of this process runs
)

_LABELS = msgspec.json.Decoder(dict[str, str])


async def save(connection: Connection, judged: Sequence[Judged]) -> None:
    """Write what became of instances: each step in its order, and where each instance stands after its last."""
    for first in range(0, len(judged), SLICE):
        part = judged[first : first + SLICE]
        last = {(one.alert.kind, one.alert.rule, one.alert.instance): one.alert for one in part}
        steps = [one for one in part if one.change or one.before != one.alert.life.state]
        await connection.execute(
            statement("alerts/save"),
            msgspec.json.encode([_instance(alert) for alert in last.values()]).decode(),
            msgspec.json.encode([_step(one) for one in steps]).decode(),
        )


def alert_of(row: Record) -> Alert:
    """An instance as it was read."""
    life = Life(
        State(row["state"]),
        row["bad"],
        row["good"],
        row["silent"],
        row["episode"],
        row["active_at"],
        row["fired_at"],
        row["resolved_at"],
        row["nodata"],
    )
    return Alert(
        row["kind"],
        row["rule"],
        row["instance"],
        life,
        row["severity"],
        row["message"],
        row["revision"],
        row["value"],
        row["threshold"],
        labels_of(row["labels"]),
    )


def rule_of(row: Record) -> Rule:
    """A rule as it was read."""
    fields: dict[str, Any] = {**row, "labels": labels_of(row["labels"])}
    return msgspec.convert({**fields, "policy": msgspec.convert(fields, Policy)}, Rule)


def labels_of(text: str) -> dict[str, str]:
    """Labels as the driver brings them."""
    return {} if text == "{}" else _LABELS.decode(text)


def _instance(alert: Alert) -> dict[str, Any]:
    row = {**msgspec.structs.asdict(alert), **msgspec.structs.asdict(alert.life)}
    del row["life"]
    return row


def _step(one: Judged) -> dict[str, Any]:
    alert = one.alert
    return {
        "kind": alert.kind,
        "rule": alert.rule,
        "instance": alert.instance,
        "state": alert.life.state,
        "episode": alert.life.episode,
        "severity": alert.severity,
        "message": alert.message,
        "value": alert.value,
        "threshold": alert.threshold,
        "labels": alert.labels,
        "before": one.before,
        "at": one.at,
        "reason": one.reason,
    }
