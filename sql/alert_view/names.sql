-- names: of rules and of alerts that SQL raised, of which anything is known
-- locks: none
select name from pipeline.alert_rule
union
select rule from pipeline.alert_state
union
(select rule from pipeline.alert_history where at > pipeline.now() - interval '30 days' limit 10000)
order by 1
