-- Why a watch may not report everything, in words, or null when all is well.
create or replace function pipeline.watch_problem(p_watch pipeline.watch) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_bad text;
begin
    if not exists (select from pg_class where oid = p_watch.relation) then
        return 'the table was dropped';
    end if;
    if pipeline.tag_of(p_watch.relation) <> p_watch.tag then
        return format('the table was renamed from %s', p_watch.tag);
    end if;
    select c into v_bad from unnest(p_watch.keys || coalesce(p_watch.columns, '{}')) c
    where not exists (select from pg_attribute where attrelid = p_watch.relation and attname = c
                      and attnum > 0 and not attisdropped)
    limit 1;
    if v_bad is not null then
        return format('column %s is gone; every change counts for the whole table', quote_ident(v_bad));
    end if;
    select string_agg(distinct r::regclass::text, ', ') into v_bad
    from pipeline.relations_of(p_watch.relation) r, pipeline.triggers_of(p_watch, r) t
    where not exists (select from pg_trigger where tgrelid = r
                      and tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix));
    if v_bad is not null then
        return format('triggers are missing on %s', v_bad);
    end if;
    select string_agg(distinct r::regclass::text, ', ') into v_bad
    from pipeline.relations_of(p_watch.relation) r, pg_trigger t
    where t.tgrelid = r and t.tgname ~ format('^pgreflex_%s_', p_watch.id) and t.tgenabled = 'D';
    if v_bad is not null then
        return format('triggers are disabled on %s', v_bad);
    end if;
    return null;
end
$$;
