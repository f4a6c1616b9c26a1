-- register: from now on these channels are told; one that is told of other alerts than before looks at all of them again
-- $1 text[]: their names
-- $2 text[]: their kinds
-- $3 text[]: what each is told, as text
-- $4 float8: how many notifications a new one may be sent at once
-- locks: the rows
with asked as (
    select * from unnest($1::text[], $2::text[], $3::text[]) as c (name, kind, definition)
),
passed as (
    delete from pipeline.alert_told as t
    using pipeline.alert_channel as c
    join asked as a on a.name = c.name
    where t.channel = c.name and t.change = 'passed' and c.definition <> a.definition
)
insert into pipeline.alert_channel as c (name, kind, definition, seen_at, tokens, refilled_at)
select name, kind, definition, pipeline.now(), $4, pipeline.now() from asked
on conflict (name) do update set kind = excluded.kind, definition = excluded.definition, seen_at = excluded.seen_at
