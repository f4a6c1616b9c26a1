-- prune: deletes resolved instances after 15 minutes, and history after 90 days
-- locks: the rows
with resolved as (
    delete from pipeline.alert_state where state = 'resolved' and resolved_at < pipeline.now() - interval '15 minutes'
)
delete from pipeline.alert_history where at < pipeline.now() - interval '90 days'
