-- Three tables that differ only in their triggers. bench_naive has what is commonly written: a NOTIFY for each row.
create table bench_bare (id bigint generated always as identity primary key, account int, note text);
create table bench_naive (like bench_bare including all);
create table bench_watched (like bench_bare including all);

create function bench_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify('bench', json_build_object('table', tg_table_name, 'op', tg_op, 'id', new.id)::text);
    return null;
end
$$;
create trigger bench_notify after insert on bench_naive for each row execute function bench_notify();
select pipeline.watch('bench_watched');
