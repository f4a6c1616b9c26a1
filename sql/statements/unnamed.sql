-- unnamed: statements of the last hour whose texts are not known
-- $1 int: how many at most
-- locks: none
select w.queryid
from pipeline.statement_window as w
where w.seconds = 60
  and w.start > pipeline.now() - interval '1 hour'
  and w.queryid <> 0
  and not exists (
      select from pipeline.query_id as i
      join pipeline.query as q on q.fingerprint = i.fingerprint
      where i.dbid = (select oid from pg_database where datname = current_database())
        and i.userid = w.userid and i.queryid = w.queryid and i.toplevel = w.toplevel
  )
group by w.queryid
order by sum(w.total_ms) desc
limit $1::int
