-- turn_back: judges rules from now on that were judged far ahead of the clock, which has been set back since
-- locks: their rows of alert_progress
update pipeline.alert_progress as p
set judged_until = pipeline.now(), counters = '{}', counted_at = null
from pipeline.alert_rule as r
where r.id = p.rule_id and p.judged_until > pipeline.now() + r.over
