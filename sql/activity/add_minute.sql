-- add_minute: adds the looks of one minute
-- $1 float8: its start, in Unix seconds
-- $2 int: how many looks there were
-- $3 bigint: how many active sessions they found together
-- $4 int: how many waited for a lock, at most
-- $5 float8: the age of the oldest transaction; null: unknown
-- $6 float8: how long one had been idle in a transaction; null: unknown
-- $7 bigint[]: query ids
-- $8 text[]: what was waited for: types
-- $9 text[]: and events
-- $10 bigint[]: how often
-- locks: the rows
with minute as (
    insert into pipeline.activity_minute as m (
        start, samples, active, blocked_most, longest_transaction_seconds, longest_idle_seconds
    )
    values (to_timestamp($1), $2, $3, $4, $5, $6)
    on conflict (start) do update
        set samples = m.samples + excluded.samples, active = m.active + excluded.active,
            blocked_most = greatest(m.blocked_most, excluded.blocked_most),
            longest_transaction_seconds
                = greatest(m.longest_transaction_seconds, excluded.longest_transaction_seconds),
            longest_idle_seconds = greatest(m.longest_idle_seconds, excluded.longest_idle_seconds)
)
insert into pipeline.activity_window as w (start, queryid, wait_type, wait_event, samples)
select to_timestamp($1), u.queryid, u.wait_type, u.wait_event, u.samples
from unnest($7::bigint[], $8::text[], $9::text[], $10::bigint[]) as u (queryid, wait_type, wait_event, samples)
on conflict (start, wait_type, wait_event, queryid) do update set samples = w.samples + excluded.samples
