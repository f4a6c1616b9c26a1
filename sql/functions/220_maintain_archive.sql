-- maintain_archive: partitions of the archive and of the jobs' logs for today and the days ahead; drops what is older
--
-- Days are UTC. Rows that a default partition caught are moved to the day they belong to. Returns how many partitions
-- were made and dropped. Does only part of the work, without an error, where a lock cannot be had in 300 ms: call again.
-- locks: ACCESS EXCLUSIVE on a default partition while a day is attached, and on the table while one is dropped
create or replace function pipeline.maintain_archive(
    keep interval default '7 days',
    ahead int default 3,
    out made int,
    out dropped int
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
set timezone = 'UTC'
as $$
declare
    v_part record;
begin
    made := 0;
    dropped := 0;
    if not pg_try_advisory_xact_lock(1885697639, 10) then
        return;
    end if;
    for v_part in
        select d.made, d.dropped
        from (values ('job_archive', 'finished_at'), ('job_log', 'at')) t (name, by),
            pipeline.maintain_days(t.name, t.by, keep, ahead) d
    loop
        made := made + v_part.made;
        dropped := dropped + v_part.dropped;
    end loop;
    delete from pipeline.worker w where w.seen_at < pipeline.now() - interval '1 day';
end
$$;
revoke execute on function pipeline.maintain_archive(interval, int) from public;

-- maintain_days: one table's part of maintain_archive
create or replace function pipeline.maintain_days(
    p_table text, p_column text, p_keep interval, p_ahead int, out made int, out dropped int
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_today date := (pipeline.now())::date;
    v_oldest date := (pipeline.now() - p_keep)::date;
    v_day date;
    v_name text;
begin
    made := 0;
    dropped := 0;
    for v_day in select d::date from generate_series(v_today, v_today + p_ahead, interval '1 day') d loop
        v_name := p_table || '_' || to_char(v_day, 'YYYYMMDD');
        continue when to_regclass('pipeline.' || v_name) is not null;
        begin
            execute format('create table pipeline.%I (like pipeline.%I including all)', v_name, p_table);
            execute format('lock table pipeline.%I in access exclusive mode', p_table || '_default');
            execute format(
                'with moved as (delete from pipeline.%I where %I >= %L and %I < %L returning *)'
                ' insert into pipeline.%I select * from moved',
                p_table || '_default', p_column, v_day, p_column, v_day + 1, v_name);
            execute format(
                'alter table pipeline.%I attach partition pipeline.%I for values from (%L) to (%L)',
                p_table, v_name, v_day, v_day + 1);
            made := made + 1;
        exception when lock_not_available then
            return; -- whoever reads the table now will do so for longer than we want others to queue behind us
        end;
    end loop;
    for v_name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = format('pipeline.%I', p_table)::regclass and c.relname ~ ('^' || p_table || '_\d{8}$')
            and to_date(right(c.relname, 8), 'YYYYMMDD') < v_oldest
    loop
        begin
            execute format('drop table pipeline.%I', v_name);
            dropped := dropped + 1;
        exception when lock_not_available then
            return; -- whoever reads the table now will do so for longer than we want others to queue behind us
        end;
    end loop;
    execute format('delete from pipeline.%I where %I < %L', p_table || '_default', p_column, v_oldest);
end
$$;
revoke execute on function pipeline.maintain_days from public;
