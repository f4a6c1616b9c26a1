-- set_rule: makes a rule, or changes the one of this name
-- $1 jsonb: the rule, an object with the columns of pipeline.alert_rule
-- locks: its row
select pipeline.alert_rule_set(
    j.name, j.metric, j.series, j.threshold, j.comparison, j.over::interval, j.need, j.keep_firing, j.hold_max,
    j.min_samples, j.severity, j.message, j.enabled, j.query, j.labels, j.sources, j.clear_threshold, j.runbook,
    j.max_instances
)
from jsonb_to_record($1) as j (
    name text, metric text, series text, sources text[], labels jsonb, query text, over text, comparison text,
    threshold float8, clear_threshold float8, need int, keep_firing int, hold_max int, min_samples int,
    max_instances int, severity text, message text, runbook text, enabled bool
)
