-- prune_series: deletes series that nothing is kept of; last_at may be an hour behind, and a day's window begins a day earlier
-- $1 float8: how long the longest windows are kept, in seconds
-- locks: the rows
delete from pipeline.timing_series as s
where s.last_at < pipeline.now() - make_interval(secs => $1) - interval '2 days'
