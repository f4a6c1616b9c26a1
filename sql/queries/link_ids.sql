-- link_ids: writes down which fingerprints statements of pg_stat_statements have; a row that is touched stays
-- $1 oid[]: databases
-- $2 oid[]: roles
-- $3 bigint[]: query ids
-- $4 bool[]: whether each is no statement inside of a function
-- $5 text[]: fingerprints
-- locks: the rows
insert into pipeline.query_id as i (dbid, userid, queryid, toplevel, fingerprint, seen_at)
select u.dbid, u.userid, u.queryid, u.toplevel, u.fingerprint, pipeline.now()
from unnest($1::oid[], $2::oid[], $3::bigint[], $4::bool[], $5::text[]) as u (dbid, userid, queryid, toplevel, fingerprint)
on conflict (dbid, userid, queryid, toplevel) do update
    set fingerprint = excluded.fingerprint, seen_at = excluded.seen_at
    where i.fingerprint <> excluded.fingerprint or i.seen_at < excluded.seen_at - interval '1 hour'
