-- figures: how many alerts there are, how many rules cannot be judged, how each channel fares, as JSON
-- locks: none
select
    (
        select coalesce(jsonb_agg(jsonb_build_object('state', c.state, 'severity', c.severity, 'count', c.count)), '[]')::text
        from (
            select s.state, s.severity, count(*) as count
            from pipeline.alert_state as s
            where s.state in ('pending', 'firing')
            group by s.state, s.severity
        ) as c
    ) as counts,
    (
        select count(*)
        from pipeline.alert_rule as r
        join pipeline.alert_progress as p on p.rule_id = r.id
        where r.enabled and p.problem is not null
    ) as rule_problems,
    (
        select coalesce(
            jsonb_agg(
                jsonb_build_object('channel', c.name, 'waiting', n.waiting, 'failed', n.failed, 'problem', c.problem) order by c.name
            ),
            '[]'
        )::text
        from pipeline.alert_channel as c
        cross join lateral (
            select count(*) filter (where o.state = 'open') as waiting,
                count(*) filter (where o.state = 'failed' and o.at > pipeline.now() - interval '24 hours') as failed
            from pipeline.alert_notification as o
            where o.channel = c.name
        ) as n
    ) as channels
