-- note_ended: leaves the note that a job of a workflow has ended; whatever ends a job puts it into the archive
create or replace function pipeline.note_ended() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into pipeline.job_ended (job, workflow, state, finished_at, result)
    values (new.id, new.workflow, new.state, new.finished_at, new.result);
    return null;
end
$$;
revoke execute on function pipeline.note_ended() from public;

create or replace trigger note_ended after insert on pipeline.job_archive
for each row when (new.workflow is not null) execute function pipeline.note_ended();
