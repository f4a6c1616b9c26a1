-- held: everything that may hold telling back now
-- locks: none
select
    (
        select coalesce(jsonb_agg(jsonb_build_object('matchers', s.matchers, 'id', s.id) order by s.id), '[]')::text
        from pipeline.alert_silence as s
        where s.starts_at <= pipeline.now() and s.ends_at > pipeline.now()
    ) as silences,
    (
        select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'name', m.name, 'matchers', m.matchers, 'cron', m.cron, 'seconds', extract(epoch from m.length), 'zone', m.zone
                )
                order by m.name
            ),
            '[]'
        )::text
        from pipeline.alert_maintenance as m
        where m.enabled
    ) as windows,
    (
        select coalesce(
            jsonb_agg(
                jsonb_build_object('name', i.name, 'source', i.source, 'target', i.target, 'equal', to_jsonb(i.equal)) order by i.name
            ),
            '[]'
        )::text
        from pipeline.alert_inhibition as i
        where i.enabled
    ) as inhibitions
