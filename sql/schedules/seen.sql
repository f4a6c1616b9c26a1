-- seen: this program still has these schedules in its code
-- $1 text[]: names
-- locks: the rows
update pipeline.schedule as s
set seen_at = pipeline.now()
from (
    select x.name from pipeline.schedule as x where x.name = any($1) and x.source = 'code' order by x.name for no key update
) as mine
where s.name = mine.name
