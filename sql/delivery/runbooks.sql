-- runbooks: the links of some rules, where they have one
-- $1 text[]: the rules
-- locks: none
select name, runbook
from pipeline.alert_rule
where name = any($1::text[]) and runbook is not null
