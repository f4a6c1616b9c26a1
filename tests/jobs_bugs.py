"""Mistakes that a job queue like this one can be built with: each a change of its SQL, and the test that finds it.

Owns: the list, and a pytest plugin that lets a whole run stand on SQL with one of them: PGREFLEX_JOBS_BUG=name
python -m pytest -p tests.jobs_bugs ... See tests/check_jobs_bugs.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

MACHINE = "tests/sql/test_jobs_machine.py"
RACES = "tests/sql/test_jobs_races.py"
LIMITS = "tests/flow/test_jobs_limits.py"
FLOW = "tests/flow/test_jobs_random.py"
LIMITER = "tests/sql/test_jobs_limiter.py"


class Bug(NamedTuple):
    """old is replaced by new, wherever it stands in a file below sql/. found_by: a test. also: one more change."""

    name: str
    file: str
    old: str
    new: str
    found_by: str = MACHINE
    also: tuple[str, str] | None = None


CLAIM, SWEEP = "functions/230_claim.sql", "functions/235_sweep.sql"

TURNS, QUEUE, LANES = CLAIM, "functions/225_queues.sql", "functions/215_lanes.sql"
RATE, UNIQUE = "functions/205_limits.sql", "functions/202_enqueue_unique.sql"
FINISH, RETRY, RELEASE, RESCUE = (f"jobs/{name}.sql" for name in ("finish", "retry", "release", "rescue"))
LOOKED_AFTER = "and j.pos <= v_state.mark\n                    and j.id not in (\n                        select "
LAST_POS = "coalesce((\n                    select "
OF_QUEUE = "from pipeline.lane l where l.queue = p_queue"
SEEN = "v_seen := coalesce(v_lane.key, v_seen);"

BUGS = [
    # leases
    Bug(
        "rescue keeps the lease",
        RESCUE,
        "delete from pipeline.lease l using dead d where l.id = d.id returning d.ids, d.started, d.worker",
        "select d.ids, d.started, d.worker from dead d",
    ),
    Bug("rescue of the living", RESCUE, "w.id = l.worker and", "false and"),
    Bug("note of begin is ignored", RESCUE, "j.id = any(f.started)", "false"),
    Bug("every loss counts", RESCUE, "(j.lost = 0 or j.id = any(f.started))::int", "1"),
    Bug(
        "finish asks for no lease",
        FINISH,
        "using given g, held h\n    where h.id = g.lease and j.id = g.id",
        "using given g\n    where j.id = g.id",
    ),
    Bug("finish locks no lease", FINISH, "for key share", "", RACES),
    Bug("finish takes nothing off", FINISH, "h.counted and l.id <> all", "false and l.id <> all"),
    Bug(
        "finish of what was given back",
        FINISH,
        "and ((g.lease, g.id) in (select m.id, unnest(m.ids) from held m)) is true",
        "",
    ),
    Bug(
        "old leases list what runs again",
        "functions/245_end_jobs.sql",
        "where e.id = any(v_leases)",
        "where false",
    ),
    Bug("expires what is held", "functions/245_end_jobs.sql", "e.queue = v_lane.queue and", "false and"),
    Bug("retry is not fenced", RETRY, "where g.id = any(h.ids)", ""),
    Bug("retry takes nothing off", RETRY, "from held h\n    where l.id = h.id", "from held h where false"),
    Bug("snooze burns an attempt", RETRY, "m.counts::int", "1"),
    Bug("release is not fenced", RELEASE, "where g.id = any(h.ids)", ""),
    Bug("release takes nothing off", RELEASE, "from held h\n    where l.id = h.id", "from held h where false"),
    Bug(
        "what is known is given back",
        "jobs/give_back.sql",
        "l.id <> all($2::bigint[])",
        "$2::bigint[] is not null",
    ),
    # stragglers
    Bug(
        "sweep off",
        SWEEP,
        "l.last_pos is distinct from 0 and (\n",
        "l.last_pos is distinct from 0 and false and (\n",
    ),
    Bug("sweep ignores leases", SWEEP, "where e.queue = p_queue and", "where false and"),
    Bug("sweep looks only before its lock", SWEEP, LOOKED_AFTER + "unnest(e.ids)", LOOKED_AFTER + "0", RACES),
    Bug("sweep ignores a limit", SWEEP, "if cardinality(v_ids) > 0 and v_lane.limited then", "if false then"),
    Bug("lanes swept by priority", SWEEP, "order by s.swept_at, l.priority", "order by l.priority, l.key", LIMITS),
    Bug("settled without waiting", SWEEP, "v_all and v_state.settling_xid < v_oldest and", "v_all and"),
    Bug("settled at once", SWEEP, "then greatest(v_state.settled, v_state.settling)", "then v_lane.mark"),
    Bug("settled beyond the look", SWEEP, "v_all := cardinality(v_ids) < v_room", "v_all := true", RACES),
    Bug("settling up to the newest mark", SWEEP, "settling else v_lane.mark", "settling else v_state.mark", RACES),
    # claims
    Bug("mark stands still", CLAIM, "(select max(pos) from picked)", "v_state.mark"),
    Bug("mark goes too far", CLAIM, "(select max(pos) from picked)", "(select max(pos) + 1 from picked)"),
    Bug(
        "claim takes the newest",
        CLAIM,
        "order by j.pos\n            limit v_take",
        "order by j.pos desc\n            limit v_take",
    ),
    Bug("turns begin at the first key", TURNS, "p_queue, p_after, v_room) t", "p_queue, '', v_room) t", LIMITS),
    Bug(
        "who found no room loses its turn",
        CLAIM,
        "exit when v_room <= 0;\n        " + SEEN,
        SEEN + "\n        exit when v_room <= 0;",
        LIMITS,
    ),
    # pausing
    Bug(
        "pause is only noted",
        QUEUE,
        "update pipeline.lane l set last_pos = p_last_pos",
        "update pipeline.lane l set last_pos = l.last_pos",
    ),
    Bug("last position is not looked at", CLAIM, LAST_POS + "l.last_pos", LAST_POS + "9223372036854775807"),
    Bug(
        "pause seen in an old snapshot",
        CLAIM,
        LAST_POS + "l.last_pos",
        LAST_POS + "v_last_pos",
        RACES,
        (
            "    v_taken bigint;\n",
            f"    v_taken bigint;\n    v_last_pos bigint := (select min(l.last_pos) {OF_QUEUE});\n",
        ),
    ),
    Bug("sweep ignores a pause", SWEEP, "and l.last_pos is distinct from 0", "", RACES),
    Bug(
        "adopt does not wait for a pause",
        LANES,
        "    perform pg_advisory_xact_lock(1885697639, 11);\n    with",
        "    with",
        RACES,
    ),
    # limits
    Bug("limit set during a claim", CLAIM, "and (v_keyed or not l.limited)", "", RACES),
    Bug("limit set during a sweep", SWEEP, "and (v_lane.limited or not l.limited)", "", RACES),
    Bug(
        "limit of a key is not locked",
        CLAIM,
        "'key:' || v_lane.key for update skip locked",
        "'key:' || v_lane.key",
        RACES,
    ),
    Bug(
        "limit of a key is not counted",
        CLAIM,
        "v_take := least(v_take, v_rule.concurrency - (",
        "v_take := least(v_take, v_rule.concurrency - 0 * (",
    ),
    Bug(
        "limit of a queue is not counted",
        CLAIM,
        "v_queue.concurrency - pipeline.running(p_queue)",
        "v_queue.concurrency",
    ),
    Bug(
        "limit of a queue is not locked",
        CLAIM,
        "where q.name = p_queue for update",
        "where q.name = p_queue",
        LIMITS,
    ),
    Bug(
        "limited leases are not counted",
        CLAIM,
        "v_lane.key, v_keyed, v_now, array_agg",
        "v_lane.key, false, v_now, array_agg",
    ),
    Bug("rate is not charged", CLAIM, "if v_queue.rate is not null and v_taken > 0", "if false"),
    Bug(
        "window of the rate ends early",
        RATE,
        "slot_now(m.slot, m.slot_seconds) - 64",
        "slot_now(m.slot, m.slot_seconds) - 63",
        LIMITER,
    ),
    Bug(
        "clock of the rate steps back",
        RATE,
        "greatest(m.slot, excluded.slot)",
        "excluded.slot",
        LIMITER,
    ),
    # admission
    Bug("promotes what waits for others", "jobs/promote.sql", "and j.needs = 0", "", RACES),
    Bug("promotes early", "jobs/promote.sql", "j.run_at <= (select pipeline.now())", "true"),
    Bug("unique key is not locked", UNIQUE, "u.key = p_unique for update", "u.key = p_unique", RACES),
    Bug(
        "merges into what was promoted",
        UNIQUE,
        "where j.id = v_job.id and j.pos is null --",
        "where j.id = v_job.id --",
        RACES,
    ),
]


def text_with(bug: Bug, text: str) -> str:
    """The file with the mistake. Raises ValueError when it has changed so much that the mistake is not in it."""
    if bug.old not in text:
        raise ValueError(f"{bug.name}: {bug.file} no longer holds {bug.old!r}")
    for old, new in ((bug.old, bug.new), *filter(None, [bug.also])):
        text = text.replace(old, new)
    return text


def _install(name: str) -> None:
    from pipeline.db import statements

    [bug] = [bug for bug in BUGS if bug.name == name]
    root = Path(tempfile.mkdtemp(prefix="pgreflex-bug-"))
    shutil.copytree(statements.folder("sql"), root / "sql")
    path = root / "sql" / bug.file
    path.write_text(text_with(bug, path.read_text(encoding="utf-8")), encoding="utf-8")
    original = statements.folder

    def folder(name: str) -> Path:
        return root / name if name == "sql" else original(name)

    statements.folder = folder


if _NAME := os.environ.get("PGREFLEX_JOBS_BUG"):
    _install(_NAME)
