-- The tables of the storm: without triggers, with alerts for one row in five, for every row, and with a row of one's own in
-- place of the alert.
create table bench_plain (id bigint generated always as identity primary key, account int, note text);
create table bench_fifth (like bench_plain including all);
create table bench_raising (like bench_plain including all);
create table bench_twin (like bench_plain including all);
create table bench_said (id bigint generated always as identity primary key, name text, account int, raised bool);

select pipeline.alert_on(
    'bench_fifth', 'insert', 'new.id % 5 = 0', name => 'storm', labels => '{account}', message => '{account} is bad'
);
select pipeline.alert_on('bench_raising', 'insert', name => 'every write', labels => '{account}', message => '{account} is bad');

create table bench_inbox (
    id bigint generated always as identity primary key, at timestamptz not null, raised bool not null, name text not null,
    message text not null, severity text not null, labels jsonb not null
);
create function bench_write() returns trigger language plpgsql as $$
begin
    insert into bench_inbox (at, raised, name, message, severity, labels)
    values (
        statement_timestamp(), true, 'twin', format('%s is bad', new.account), 'warning',
        jsonb_build_object('account', new.account::text)
    );
    return null;
end
$$;
create trigger bench_write after insert on bench_twin for each row execute function bench_write();
