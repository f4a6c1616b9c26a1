-- lost: how many alerts triggers of alert_on could not raise
-- locks: none
select '{}'::jsonb as labels, coalesce(pg_sequence_last_value('pipeline.alert_losses'), 0)::float8 as value,
    1::bigint as samples, '' as detail
