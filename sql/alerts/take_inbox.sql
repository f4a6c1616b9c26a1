-- take_inbox: removes and returns the oldest messages of raise_alert and resolve_alert; labels become texts
-- $1 bigint: how many at most
-- locks: the rows
with taken as (
    delete from pipeline.alert_inbox
    where id in (select id from pipeline.alert_inbox order by id limit $1)
    returning id, at, raised, name, instance, labels, message, severity
)
select id, extract(epoch from at)::float8 as at, raised, name, instance, message, severity,
    case
        when labels = '{}' then labels
        else (select jsonb_object_agg(l.key, coalesce(l.value, '')) from jsonb_each_text(labels) as l)
    end as labels
from taken
order by id
