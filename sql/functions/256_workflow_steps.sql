-- cancel_workflow: ends all jobs of a workflow that have not ended; false if there are none, or no such workflow
--
-- A resolver ends them, in steps; those that run are told to stop.
-- locks: the workflow's row
create or replace function pipeline.cancel_workflow(id bigint) returns bool
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update pipeline.workflow w set state = 'cancelling'
    where w.id = cancel_workflow.id and w.state in ('running', 'cancelling');
    return found;
end
$$;
revoke execute on function pipeline.cancel_workflow(bigint) from public;

-- lock_workflows: locks the workflows of these jobs, in the order of their ids; false if no job has one
create or replace function pipeline.lock_workflows(p_ids bigint[]) returns bool
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    perform from pipeline.workflow w
    where w.id in (select j.workflow from pipeline.workflow_job j where j.id = any(p_ids))
    order by w.id for no key update;
    return found;
end
$$;
revoke execute on function pipeline.lock_workflows(bigint[]) from public;

-- rejoin_workflow: tells the workflows of jobs that were put back that these have not ended after all
--
-- Called in the transaction that puts them back. A job that still waits for others loses its position. What was noted of
-- their former end and not yet told to their dependents never will be. A workflow that is being cancelled stays so, and the
-- jobs are cancelled again.
-- locks: the workflows' rows
create or replace function pipeline.rejoin_workflow(p_ids bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    if not pipeline.lock_workflows(p_ids) then
        return;
    end if;
    delete from pipeline.job_ended d where d.job = any(p_ids);
    with again as (
        update pipeline.workflow_job w set state = null, finished_at = null, result = null
        from pipeline.workflow_job was
        where w.id = any(p_ids) and was.id = w.id
        returning w.workflow, (was.state is not null)::int as ended, coalesce(was.state <> 'finished', false)::int as failed
    )
    update pipeline.workflow f
    set pending = f.pending + a.ended, failed = f.failed - a.failed, finished_at = null,
        state = case f.state when 'cancelling' then 'cancelling' else 'running' end
    from (select a.workflow, sum(a.ended) as ended, sum(a.failed) as failed from again a group by a.workflow) a
    where f.id = a.workflow;
    update pipeline.job j
    set needs = n.count, pos = null
    from (
        select e.job, count(*)::int from pipeline.job_need e where e.job = any(p_ids) and not e.met group by e.job
    ) n
    where j.id = n.job;
end
$$;
revoke execute on function pipeline.rejoin_workflow(bigint[]) from public;

-- retry_workflow: lets all jobs of a workflow run again that have ended and not finished; returns how many
--
-- Those that need one another wait as they did at first.
-- locks: the jobs' rows in the archive, the workflow's row
create or replace function pipeline.retry_workflow(id bigint) returns int
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select cardinality(pipeline.retry_jobs(array(
        select w.id from pipeline.workflow_job w
        where w.workflow = retry_workflow.id and w.state <> 'finished' order by w.id
    )))
$$;
revoke execute on function pipeline.retry_workflow(bigint) from public;

-- prune_workflows: deletes workflows that have ended before p_keep, at most p_limit jobs at a time; returns how many
-- locks: the workflows, SKIP LOCKED
create or replace function pipeline.prune_workflows(p_keep interval default '7 days', p_limit int default 10000) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_flow record;
    v_count int := 0;
    v_jobs int := 0;
begin
    for v_flow in
        select w.id, w.total from pipeline.workflow w
        where w.finished_at < pipeline.now() - p_keep
        order by w.finished_at limit 1000
        for update skip locked
    loop
        exit when v_jobs > 0 and v_jobs + v_flow.total > p_limit;
        delete from pipeline.job_need n using pipeline.workflow_job j where j.workflow = v_flow.id and n.needed = j.id;
        delete from pipeline.workflow_job j where j.workflow = v_flow.id;
        delete from pipeline.workflow w where w.id = v_flow.id;
        v_jobs := v_jobs + v_flow.total;
        v_count := v_count + 1;
    end loop;
    return v_count;
end
$$;
revoke execute on function pipeline.prune_workflows(interval, int) from public;
