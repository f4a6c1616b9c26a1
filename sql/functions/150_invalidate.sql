-- invalidate: what is cached under these tags, or under any that begins with the prefix, is dropped everywhere
--
-- In every process that caches, if and when the transaction commits. The empty prefix is everything. Many tags are
-- sent in parts of at most about 4,000 bytes, so that each fits into NOTIFY when it is packed.
create or replace function pipeline.invalidate(tags text[] default null, prefix text default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if tags is null and prefix is null then
        raise invalid_parameter_value using
            message = 'nothing is named that is to be invalidated',
            hint = 'Give tags => ''{orders:7}'' or prefix => ''orders:''; the empty prefix means everything.';
    end if;
    perform pipeline.emit('pipeline.invalidate', p.payload)
    from (
        select json_build_object('tags', json_agg(n.name order by n.place))::text as payload
        from (
            select t.name, t.place,
                (sum(octet_length(t.name) + 5) over (order by t.place)) / 4000 as part
            from unnest(invalidate.tags) with ordinality t (name, place)
            where t.name is not null
        ) n
        group by n.part
    ) p;
    if prefix is not null then
        perform pipeline.emit('pipeline.invalidate', json_build_object('prefix', prefix)::text);
    end if;
end
$$;
