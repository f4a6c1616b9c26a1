-- prune: deletes queries that nobody has seen for so long, and ids of pg_stat_statements likewise; and plans of queries that
-- nobody has ever written down, a day later
-- $1 float8: how long, in seconds
-- $2 bigint: how many of each at most
-- locks: the rows
with old as (
    select fingerprint from pipeline.query
    where last_at < pipeline.now() - make_interval(secs => $1::float8) limit $2::bigint
),
ids as (
    delete from pipeline.query_id
    where ctid = any (array(
        select ctid from pipeline.query_id where seen_at < pipeline.now() - make_interval(secs => $1::float8) limit $2::bigint
    ))
),
turns as (
    delete from pipeline.plan_turn as t
    where t.fingerprint in (select fingerprint from old)
       or t.at < pipeline.now() - interval '1 day'
          and not exists (select from pipeline.query as q where q.fingerprint = t.fingerprint)
),
plans as (
    delete from pipeline.plan as p
    where p.fingerprint in (select fingerprint from old)
       or p.last_at < pipeline.now() - interval '1 day'
          and not exists (select from pipeline.query as q where q.fingerprint = p.fingerprint)
)
delete from pipeline.query as q using old where q.fingerprint = old.fingerprint
