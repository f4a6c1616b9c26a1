-- move: sets which fingerprints queries have under the present rules; what had moved to an old one follows it
-- $1 int: the version of the present rules
-- $2 text[]: the old fingerprints
-- $3 text[]: the new ones, the same where nothing changed
-- locks: the rows
with pair as (
    select u.old, u.new from unnest($2::text[], $3::text[]) as u (old, new)
),
follow as (
    update pipeline.query as q set moved_to = nullif(p.new, q.fingerprint)
    from pair as p
    where q.moved_to = p.old and p.new <> p.old
),
ids as (
    update pipeline.query_id as i set fingerprint = p.new
    from pair as p
    where i.fingerprint = p.old and p.new <> p.old
)
update pipeline.query as q
set version = $1::int, moved_to = nullif(p.new, p.old)
from pair as p
where q.fingerprint = p.old
