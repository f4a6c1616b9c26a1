-- list_rules: every rule and how it fares
-- locks: none
select name, origin, metric, severity, health, problem, instances, extract(epoch from judged_until)::float8 as judged_until,
    took_ms
from pipeline.alert_rules()
