-- raised: some of the instances that SQL has raised
-- $1 text[]: their names
-- $2 text[]: their instances, one for each name
-- locks: none; the caller holds the lock under which they change
select kind, rule, instance, state, bad, good, silent, nodata, episode, extract(epoch from active_at)::float8 as active_at,
    extract(epoch from fired_at)::float8 as fired_at, extract(epoch from resolved_at)::float8 as resolved_at,
    severity, message, value, threshold, revision, labels
from unnest($1::text[], $2::text[]) as w (rule, instance)
join pipeline.alert_state as s using (rule, instance)
where s.kind = 'raised'
