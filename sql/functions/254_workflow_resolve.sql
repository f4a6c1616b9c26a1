-- resolve_workflows: takes notes that jobs have ended, and tells those that need them; one transaction, one at a time
--
-- p_above: only notes beyond this one, so that a look need not step over what an old snapshot keeps; 0 takes all. p_notes:
-- how many notes at most. p_edges: how many dependents at most; a job that has more keeps its note for the next time.
-- Returns no row while another resolver is at work, else: how many notes it has taken, how many jobs it has let run or
-- ended, the queues of the former, and the last note that it has seen.
-- locks: advisory lock 14; the workflows, SKIP LOCKED; the dependents
create or replace function pipeline.resolve_workflows(p_above bigint, p_notes int, p_edges int)
returns table (notes int, released int, cancelled int, queues text[], last bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- every statement here goes from a short list to rows by their keys, whatever statistics say of tables that were empty
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_flows bigint[];
    v_notes bigint[];
    v_done_to bigint;
    v_needed bigint[];
    v_job bigint[];
    v_what text[];
begin
    if not pg_try_advisory_xact_lock(1885697639, 14) then
        return;
    end if;
    notes := 0; released := 0; cancelled := 0; last := p_above;
    if not exists (select from pipeline.job_ended d where d.n > p_above)
        and not exists (select from pipeline.workflow w where w.state = 'cancelling')
    then
        return next;
        return;
    end if;
    -- the lock in one statement, and all that depends on it in later ones, under newer snapshots
    v_flows := array(
        select w.id from pipeline.workflow w
        where w.id = any(array(
            select d.workflow from pipeline.job_ended d where d.n > p_above order by d.n limit p_notes
        ))
        order by w.id for no key update skip locked
    );
    -- of a workflow that is gone nobody waits for anything
    delete from pipeline.job_ended d
    where d.n = any(array(select e.n from pipeline.job_ended e where e.n > p_above order by e.n limit p_notes))
        and not exists (select from pipeline.workflow w where w.id = d.workflow);

    select array_agg(t.n order by t.n), max(t.n) into v_notes, last
    from (
        select d.n, sum(coalesce(w.dependents, 0)) over (order by d.n) as so_far, row_number() over (order by d.n) as place
        from (
            select * from pipeline.job_ended d
            where d.n > p_above and d.workflow = any(v_flows) order by d.n limit p_notes
        ) d
        left join pipeline.workflow_job w on w.id = d.job
    ) t
    where t.so_far <= p_edges or t.place = 1;
    notes := coalesce(cardinality(v_notes), 0);
    last := coalesce(last, p_above);

    perform pipeline.count_ended(v_notes);
    select
        array_agg(e.needed order by e.n, e.job), array_agg(e.job order by e.n, e.job),
        array_agg(
            case
                when f.state = 'cancelling' or e.met then 'nothing'
                when e.state = 'finished' or e.policy = 'ignore' then 'release'
                when e.policy = 'cancel' then 'cancel'
                else 'nothing'
            end order by e.n, e.job
        ),
        case when notes = 1 and count(*) >= p_edges then max(e.job) end
    into v_needed, v_job, v_what, v_done_to
    from (
        select d.n, d.workflow, d.state, e.*
        from unnest(v_notes) x (n)
        join pipeline.job_ended d on d.n = x.n
        cross join lateral (
            select e.needed, e.job, e.policy, e.met from pipeline.job_need e
            where e.needed = d.job and e.job > d.done_to
            order by e.job limit p_edges
        ) e
    ) e
    join pipeline.workflow f on f.id = e.workflow;

    cancelled := pipeline.cancel_dependents(v_needed, v_job, v_what) + pipeline.cancel_workflows(p_edges);
    select r.released, r.queues into released, queues from pipeline.release_dependents(v_needed, v_job, v_what) r;

    update pipeline.job_ended d set done_to = v_done_to where v_done_to is not null and d.n = v_notes[1];
    delete from pipeline.job_ended d where v_done_to is null and d.n = any(v_notes);
    update pipeline.workflow f
    set finished_at = pipeline.now(), state = case
        when f.state = 'cancelling' then 'cancelled' when f.failed > 0 then 'failed' else 'finished'
    end
    where f.id = any(v_flows) and f.pending <= 0 and f.finished_at is null;
    return next;
end
$$;
revoke execute on function pipeline.resolve_workflows(bigint, int, int) from public;

-- count_ended: writes down how jobs have ended, and counts each for its workflow when that was not known before
-- locks: the caller holds those of the workflows
create or replace function pipeline.count_ended(p_notes bigint[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    with latest as materialized (
        select distinct on (d.job) d.job, d.state, d.finished_at, d.result
        from unnest(p_notes) x (n)
        join pipeline.job_ended d on d.n = x.n
        order by d.job, d.n desc
    ), ended as (
        update pipeline.workflow_job w
        set state = l.state, finished_at = l.finished_at, result = case when w.dependents > 0 then l.result end
        from latest l
        join pipeline.workflow_job was on was.id = l.job
        where w.id = l.job
        returning
            w.workflow, (was.state is null)::int as first,
            (w.state <> 'finished')::int - (coalesce(was.state, 'finished') <> 'finished')::int as failed
    )
    update pipeline.workflow f
    set pending = f.pending - e.first, failed = f.failed + e.failed
    from (select e.workflow, sum(e.first) as first, sum(e.failed) as failed from ended e group by e.workflow) e
    where f.id = e.workflow
$$;
revoke execute on function pipeline.count_ended(bigint[]) from public;

-- release_dependents: counts down what jobs wait for, and gives a position to those that wait for nothing more
-- locks: the jobs
create or replace function pipeline.release_dependents(
    p_needed bigint[], p_job bigint[], p_what text[], out released int, out queues text[]
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    with edge as materialized (
        select e.needed, e.job from unnest(p_needed, p_job, p_what) e (needed, job, what) where e.what = 'release'
    ), met as (
        update pipeline.job_need n set met = true from edge e where n.needed = e.needed and n.job = e.job
    ), waiting as materialized (
        select j.id, e.count
        from (select e.job, count(*)::int from edge e group by e.job) e
        join pipeline.job j on j.id = e.job
        where j.needs > 0
        order by j.id for update of j
    ), lowered as (
        update pipeline.job j
        set needs = greatest(j.needs - w.count, 0),
            pos = case when j.needs <= w.count and j.run_at <= t.now then nextval('pipeline.job_pos') end,
            run_at = case when j.needs <= w.count then greatest(j.run_at, t.now) else j.run_at end,
            expires_at = case when j.needs <= w.count
                then coalesce(j.expires_at, greatest(j.run_at, t.now) + (
                    select k.expires from pipeline.task k where k.name = j.task
                ))
                else j.expires_at end
        from waiting w, (select pipeline.now() as now) t
        where j.id = w.id
        returning j.queue, j.priority, j.key, j.needs, j.pos
    ), asked as (
        insert into pipeline.lane_request (queue, priority, key)
        select distinct l.queue, l.priority, l.key from lowered l
        where l.needs = 0 and not exists (
            select from pipeline.lane k where k.queue = l.queue and k.priority = l.priority and k.key = l.key
        )
    ), told as materialized (
        select distinct l.queue from lowered l where l.pos is not null
    )
    select
        (select count(*)::int from lowered l where l.needs = 0),
        (select array_agg(t.queue) from told t, lateral (select pipeline.ring_workers(t.queue)) w)
$$;
revoke execute on function pipeline.release_dependents(bigint[], bigint[], text[]) from public;

-- cancel_dependents: ends jobs because one that they need has not finished; returns how many
--
-- Their own notes carry it on to those that need them.
-- locks: the jobs
create or replace function pipeline.cancel_dependents(p_needed bigint[], p_job bigint[], p_what text[]) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_need record;
    v_count int := 0;
begin
    for v_need in
        select w.id, w.name, w.state, array_agg(j.id order by j.id) as jobs
        from (
            select distinct on (e.job) e.job, e.needed
            from unnest(p_needed, p_job, p_what) e (needed, job, what)
            where e.what = 'cancel'
            order by e.job, e.needed
        ) e
        join pipeline.job j on j.id = e.job and j.needs > 0
        join pipeline.workflow_job w on w.id = e.needed
        group by w.id, w.name, w.state
        order by w.id
    loop
        v_count := v_count + cardinality(pipeline.end_jobs(v_need.jobs, 'cancelled', format(
            'job %s (%s), which this one needs, %s', v_need.id, v_need.name,
            case v_need.state when 'failed' then 'has failed' when 'expired' then 'has expired' else 'was cancelled' end
        )));
    end loop;
    return v_count;
end
$$;
revoke execute on function pipeline.cancel_dependents(bigint[], bigint[], text[]) from public;

-- cancel_workflows: ends the jobs of workflows that are being cancelled, also those that run; returns how many
-- locks: the workflows, SKIP LOCKED; the jobs
create or replace function pipeline.cancel_workflows(p_limit int) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_flow bigint;
    v_count int := 0;
begin
    for v_flow in
        select w.id from pipeline.workflow w where w.state = 'cancelling' order by w.id
        for no key update skip locked
    loop
        exit when v_count >= p_limit;
        v_count := v_count + cardinality(pipeline.cancel_jobs(array(
            select j.id
            from pipeline.workflow_job w
            join pipeline.job j on j.id = w.id
            where w.workflow = v_flow
            order by j.id limit p_limit - v_count
        ), 'workflow ' || v_flow || ' was cancelled'));
    end loop;
    return v_count;
end
$$;
revoke execute on function pipeline.cancel_workflows(int) from public;
