-- prune: deletes queries that nobody has seen for so long, and ids of pg_stat_statements likewise
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
    delete from pipeline.plan_turn as t using old where t.fingerprint = old.fingerprint
),
plans as (
    delete from pipeline.plan as p using old where p.fingerprint = old.fingerprint
)
delete from pipeline.query as q using old where q.fingerprint = old.fingerprint
