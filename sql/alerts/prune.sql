-- prune: deletes resolved instances after 15 minutes, once every channel that was told of them knows, and history after 90 days
-- locks: the rows
with resolved as (
    delete from pipeline.alert_state as s
    where s.state = 'resolved' and s.resolved_at < pipeline.now() - interval '15 minutes'
      and not exists (
          select
          from pipeline.alert_told as t
          where t.kind = s.kind and t.rule = s.rule and t.instance = s.instance and t.change = 'firing'
      )
)
delete from pipeline.alert_history where at < pipeline.now() - interval '90 days'
