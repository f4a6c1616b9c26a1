-- sample: what the sessions of this database are at, ours left out
-- locks: none
with session as materialized (
    select a.backend_type is null as hidden, a.state, coalesce(a.query_id, 0) as queryid,
        coalesce(a.wait_event_type, '') as wait_type, coalesce(a.wait_event, '') as wait_event,
        clock_timestamp() - a.xact_start as transaction,
        case when a.state like 'idle in transaction%' then clock_timestamp() - a.state_change end as idle
    from pg_stat_activity as a
    where a.datname = current_database()
      and (a.backend_type = 'client backend' or a.backend_type is null)
      and a.pid <> pg_backend_pid()
      and a.application_name not like 'pgreflex %'
),
wait as (
    select s.queryid, s.wait_type, s.wait_event, count(*)::int as n
    from session as s
    where s.state = 'active'
    group by s.queryid, s.wait_type, s.wait_event
),
waits as (
    select coalesce(array_agg(w.queryid), '{}') as queryids, coalesce(array_agg(w.wait_type), '{}') as types,
        coalesce(array_agg(w.wait_event), '{}') as events, coalesce(array_agg(w.n), '{}') as numbers
    from wait as w
)
select w.queryids, w.types, w.events, w.numbers,
    count(s.hidden)::int as sessions, count(*) filter (where s.hidden)::int as hidden,
    count(*) filter (where s.wait_type = 'Lock')::int as blocked,
    extract(epoch from max(s.transaction))::float8 as longest_transaction_seconds,
    extract(epoch from max(s.idle))::float8 as longest_idle_seconds,
    extract(epoch from pipeline.now())::float8 as at
from waits as w
left join session as s on true
group by w.queryids, w.types, w.events, w.numbers
