-- What the chaos check writes down of jobs, and what the database itself tells of them through triggers.
--
-- The triggers tell the cause of a change by the statement that made it: every statement of the queue opens with its name.

create schema chaos;

create table chaos.chunk (n int primary key);
create table chaos.sent (job bigint primary key, kind text not null, run_at timestamptz);

create table chaos.start (job bigint, attempt int, lease bigint, worker bigint, at timestamptz default clock_timestamp());
create table chaos.stop (job bigint, lease bigint, at timestamptz default clock_timestamp());
create table chaos.effect (job bigint, attempt int);
create table chaos.effect_tx (job bigint, attempt int);
create table chaos.step (job bigint, n int, at timestamptz default clock_timestamp());
create table chaos.resumed (job bigint, n int, at timestamptz default clock_timestamp());
create table chaos.redriven (job bigint primary key);
create table chaos.refused (job bigint, what text);
create table chaos.wrong (what text);

create table chaos.handed (lease bigint, queue text, key text, jobs int, at timestamptz default clock_timestamp());
create table chaos.lease_end (
    lease bigint, worker bigint, cause text, ids bigint[], started bigint[], at timestamptz default clock_timestamp()
);
create table chaos.again (job bigint, cause text, burned bool, lost bool, error text);
create table chaos.worker (id bigint, name text);

create index on chaos.start (job);
create index on chaos.effect (job);
create index on chaos.effect_tx (job);

create function chaos.cause() returns text language sql as $$
    select coalesce(substring(current_query() from '-- (\w+):'), left(current_query(), 60))
$$;

create function chaos.note_handed() returns trigger language plpgsql as $$
begin
    insert into chaos.handed (lease, queue, key, jobs) values (new.id, new.queue, new.key, cardinality(new.ids));
    return null;
end $$;
create trigger note_handed after insert on pipeline.lease for each row when (new.counted)
    execute function chaos.note_handed();

create function chaos.note_lease_end() returns trigger language plpgsql as $$
begin
    insert into chaos.lease_end (lease, worker, cause, ids, started) values (
        old.id, old.worker, chaos.cause(),
        case tg_op when 'DELETE' then old.ids else array(select i from unnest(old.ids) i where i <> all(new.ids)) end,
        old.started
    );
    return null;
end $$;
create trigger note_lease_end after delete on pipeline.lease for each row execute function chaos.note_lease_end();
create trigger note_lease_part after update on pipeline.lease for each row
    when (old.counted and cardinality(new.ids) < cardinality(old.ids)) execute function chaos.note_lease_end();

create function chaos.note_again() returns trigger language plpgsql as $$
begin
    insert into chaos.again (job, cause, burned, lost, error)
    values (new.id, chaos.cause(), new.attempt > old.attempt, new.lost > old.lost, split_part(new.error, E'\n', 1));
    return null;
end $$;
create trigger note_again after update on pipeline.job for each row
    when (old.pos is not null) execute function chaos.note_again();

-- The unique key is locked by now: whoever made this job has seen that the one before it was gone.
create function chaos.note_twin() returns trigger language plpgsql as $$
begin
    insert into chaos.wrong (what)
    select 'two unique jobs at once: ' || j.id || ' and ' || new.id
    from pipeline.job j
    where j.task = new.task and j.args ->> 'n' = new.args ->> 'n' and j.id <> new.id;
    return null;
end $$;
create trigger note_twin after insert on pipeline.job for each row when (new.task = 'chaos.unique')
    execute function chaos.note_twin();

create function chaos.note_worker() returns trigger language plpgsql as $$
begin
    insert into chaos.worker values (new.id, new.name);
    return null;
end $$;
create trigger note_worker after insert on pipeline.worker for each row execute function chaos.note_worker();
