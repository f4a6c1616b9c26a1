-- take_inbox: removes the oldest messages of raise_alert and resolve_alert, and returns those that can change something
-- $1 bigint: how many are removed at most
-- locks: the rows
-- Of several raises in succession of one alert the first and the last one matter, of several resolves the first: a storm is mostly
-- the same alerts again and again. Labels become texts.
with taken as (
    delete from pipeline.alert_inbox
    where id in (select id from pipeline.alert_inbox order by id limit $1)
    returning id, at, raised, name, instance, labels, message, severity
),
told as (
    select t.*, lag(t.raised) over alert is distinct from t.raised as differs, lead(t.id) over alert is null as is_last
    from taken as t
    window alert as (partition by t.name, t.labels, t.instance order by t.id)
)
select id, extract(epoch from at)::float8 as at, raised, name, instance, message, severity,
    case
        when labels = '{}' then labels
        else (select jsonb_object_agg(l.key, coalesce(l.value, '')) from jsonb_each_text(labels) as l)
    end as labels
from told
where differs or (raised and is_last)
order by id
