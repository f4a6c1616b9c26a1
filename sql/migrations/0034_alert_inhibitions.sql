-- Where two built-in rules speak of the same trouble, the graver one is told.
insert into pipeline.alert_inhibition (name, source, target, equal, origin)
select 'the graver of two: ' || target, jsonb_build_object('rule', source), jsonb_build_object('rule', target), array['instance'], 'builtin'
from (
    values
        ('very slow query', 'slow query'),
        ('pool exhausted', 'pool waits'),
        ('connections nearly gone', 'connections'),
        ('wraparound is near', 'wraparound'),
        ('disk nearly full', 'disk'),
        ('error budget burns fast', 'error budget burns'),
        ('error budget burns', 'error budget burns slowly'),
        ('error budget burns slowly', 'error budget wears off')
) as pair (source, target)
on conflict (name) do nothing;
