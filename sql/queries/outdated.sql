-- outdated: queries whose fingerprints older rules made, the ones seen last first
-- $1 int: the version of the present rules
-- $2 bigint: how many at most
-- locks: none
select fingerprint, kind, text from pipeline.query
where version < $1 and moved_to is null
order by last_at desc
limit $2
