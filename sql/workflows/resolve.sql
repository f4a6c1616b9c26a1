-- resolve: takes notes that jobs have ended, and tells those that need them; no row while another resolver is at work
-- $1 bigint: only notes beyond this one   $2 int: notes at most   $3 int: dependents at most
-- locks: advisory lock 14; the workflows, SKIP LOCKED; the dependents
select r.notes, r.released, r.cancelled, r.queues, r.last from pipeline.resolve_workflows($1, $2::int, $3::int) r
