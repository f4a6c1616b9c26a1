-- groups: the groups of a channel that were told before, and whether one is being told now
-- $1 text: the channel
-- locks: none
select name, extract(epoch from told_at)::float8 as told_at, open is not null as open
from pipeline.alert_group
where channel = $1
