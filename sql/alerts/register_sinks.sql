-- register_sinks: from now on these are told
-- $1 text[]: their names
-- locks: the rows
insert into pipeline.alert_sink (name, seen_at)
select name, pipeline.now() from unnest($1::text[]) as name
on conflict (name) do update set seen_at = excluded.seen_at
