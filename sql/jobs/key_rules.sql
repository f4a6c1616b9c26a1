-- key_rules: the limits of keys
-- locks: none
select r.name, r.concurrency, r.rate, r.rate_seconds from pipeline.key_rule r order by r.name
