-- alert_on_slow_updates: a rule on the p95 of pgbench's updates, judged every five seconds
-- locks: the rule's row
select pipeline.alert_rule_set(
    'slow updates', 'latency.p95', 'pgbench_branches.update', 500,
    over => '5 seconds', need => 1, keep_firing => 2, severity => 'critical',
    message => 'p95 of {series} is {value} ms, more than {threshold} ms')
