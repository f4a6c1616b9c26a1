-- alarm: raises the alert that a cache has served a value that was wrong
-- $1 text: what was wrong
-- $2 jsonb: the labels of the alert, a JSON object
-- locks: none
select pipeline.raise_alert('cache_violation', $1, 'critical', $2)
