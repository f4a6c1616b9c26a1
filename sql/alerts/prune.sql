-- prune: deletes resolved instances after 15 minutes, sinks that no daemon has, old notices once everyone was told,
-- and history after 90 days
-- locks: the rows
with resolved as (
    delete from pipeline.alert_state where state = 'resolved' and resolved_at < pipeline.now() - interval '15 minutes'
),
sinks as (
    delete from pipeline.alert_sink where seen_at < pipeline.now() - interval '7 days'
),
notices as (
    delete from pipeline.alert_notice as n
    where n.at < pipeline.now() - interval '7 days'
      and not exists (
          select from pipeline.alert_delivery as d where d.notice = n.id and d.delivered_at is null
      )
)
delete from pipeline.alert_history where at < pipeline.now() - interval '90 days'
