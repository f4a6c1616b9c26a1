-- maintain_archive: partitions of the archive for today and the days ahead; drops what is older than `keep`
--
-- Days are UTC. Rows that the default partition caught are moved to the day they belong to. Returns how many partitions
-- were made and dropped. Does only part of the work, without an error, where a lock cannot be had in 300 ms: call again.
-- locks: ACCESS EXCLUSIVE on the default partition while a day is attached, and on the archive while one is dropped
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
    v_today date := (pipeline.now())::date;
    v_oldest date := (pipeline.now() - keep)::date;
    v_day date;
    v_name text;
begin
    made := 0;
    dropped := 0;
    if not pg_try_advisory_xact_lock(1885697639, 10) then
        return;
    end if;
    for v_day in select d::date from generate_series(v_today, v_today + ahead, interval '1 day') d loop
        v_name := 'job_archive_' || to_char(v_day, 'YYYYMMDD');
        continue when to_regclass('pipeline.' || v_name) is not null;
        begin
            execute format('create table pipeline.%I (like pipeline.job_archive including all)', v_name);
            lock table pipeline.job_archive_default in access exclusive mode;
            execute format(
                'with moved as (delete from pipeline.job_archive_default where finished_at >= %L and finished_at < %L returning *)'
                ' insert into pipeline.%I select * from moved', v_day, v_day + 1, v_name);
            execute format(
                'alter table pipeline.job_archive attach partition pipeline.%I for values from (%L) to (%L)',
                v_name, v_day, v_day + 1);
            made := made + 1;
        exception when lock_not_available then
            return; -- whoever reads the archive now will do so for longer than we want others to queue behind us
        end;
    end loop;
    for v_name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'pipeline.job_archive'::regclass and c.relname ~ '^job_archive_\d{8}$'
            and to_date(right(c.relname, 8), 'YYYYMMDD') < v_oldest
    loop
        begin
            execute format('drop table pipeline.%I', v_name);
            dropped := dropped + 1;
        exception when lock_not_available then
            return; -- whoever reads the archive now will do so for longer than we want others to queue behind us
        end;
    end loop;
    delete from pipeline.job_archive_default d where d.finished_at < v_oldest;
    delete from pipeline.worker w where w.seen_at < pipeline.now() - interval '1 day';
end
$$;
revoke execute on function pipeline.maintain_archive(interval, int) from public;
