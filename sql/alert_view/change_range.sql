-- change_range: the numbers of the oldest and the newest change of state that are kept; 0 when there is none
-- locks: none
select coalesce(min(id), 0) as first, coalesce(max(id), 0) as last from pipeline.alert_history
