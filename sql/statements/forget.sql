-- forget: forgets counters that are no longer there
-- $1 oid[]: userids
-- $2 bigint[]: queryids
-- $3 bool[]: whether at the top level
-- locks: the rows
delete from pipeline.statement_seen as s
using unnest($1::oid[], $2::bigint[], $3::bool[]) as g (userid, queryid, toplevel)
where s.queryid = g.queryid and s.userid = g.userid and s.toplevel = g.toplevel
