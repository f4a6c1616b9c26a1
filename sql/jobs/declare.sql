-- declare: writes down what this program says of its tasks, so that whoever adds a job by name gets the same
-- $1 jsonb: a list of objects with the columns of pipeline.task
-- locks: the tasks' rows
insert into pipeline.task as t (
    name, queue, priority, max_attempts, timeout, expires, key, unique_by, unique_for, unique_states, on_clash, sealed, redact,
    seen_at
)
select
    d.name, d.queue, d.priority, d.max_attempts, make_interval(secs => d.timeout), make_interval(secs => d.expires), d.key,
    d.unique_by, make_interval(secs => d.unique_for), d.unique_states, d.on_clash, d.sealed, coalesce(d.redact, '{}'), pipeline.now()
from jsonb_to_recordset($1::jsonb) as d (
    name text, queue text, priority smallint, max_attempts int, timeout float8, expires float8, key text,
    unique_by text, unique_for float8, unique_states text[], on_clash text, sealed bool, redact text[]
)
order by d.name
on conflict (name) do update set
    queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
    timeout = excluded.timeout, expires = excluded.expires, key = excluded.key, unique_by = excluded.unique_by,
    unique_for = excluded.unique_for, unique_states = excluded.unique_states, on_clash = excluded.on_clash,
    sealed = excluded.sealed, redact = excluded.redact, seen_at = excluded.seen_at
