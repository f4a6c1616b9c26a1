-- edit_rule: changes what is given of a rule; no row when there is none
-- $1 text: its name
-- $2 jsonb: the columns that change
-- locks: its row
update pipeline.alert_rule as r
set (
        metric, series, sources, labels, query, over, comparison, threshold, clear_threshold, need, keep_firing, hold_max,
        min_samples, max_instances, severity, message, runbook, enabled
    ) = (
        select p.metric, p.series, p.sources, p.labels, p.query, p.over, p.comparison, p.threshold, p.clear_threshold, p.need,
            p.keep_firing, p.hold_max, p.min_samples, p.max_instances, p.severity, p.message, p.runbook, p.enabled
        from jsonb_populate_record(r, $2::jsonb) as p
    )
where r.name = $1
returning r.name, r.origin
