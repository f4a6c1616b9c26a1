-- prune: forgets channels that no daemon has, with our own alerts on them, what was sent a week ago, silences a week after their
-- end, and what was noted of episodes that are over
-- locks: the rows
with channels as (
    delete from pipeline.alert_channel where seen_at < pipeline.now() - interval '7 days'
    returning case
        when problem is not null then pipeline.resolve_alert('pgreflex delivery failed', jsonb_build_object('channel', name))
    end
),
notifications as (
    delete from pipeline.alert_notification where state <> 'open' and at < pipeline.now() - interval '7 days'
),
groups as (
    delete from pipeline.alert_group where open is null and told_at < pipeline.now() - interval '1 day'
),
silences as (
    delete from pipeline.alert_silence where ends_at < pipeline.now() - interval '7 days'
),
notes as (
    delete from pipeline.alert_note where at < pipeline.now() - interval '90 days'
),
acks as (
    delete from pipeline.alert_ack as a
    where not exists (
        select
        from pipeline.alert_state as s
        where s.kind = a.kind and s.rule = a.rule and s.instance = a.instance and s.episode = a.episode
          and s.state in ('pending', 'firing')
    )
)
delete from pipeline.alert_told as t
where t.change = 'passed'
  and not exists (
      select
      from pipeline.alert_state as s
      where s.kind = t.kind and s.rule = t.rule and s.instance = t.instance and s.episode = t.episode and s.state = 'firing'
  )
