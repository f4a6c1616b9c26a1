-- begin: notes that a job which was once lost with a worker begins now; null when the worker no longer holds it
-- $1 bigint: job   $2 bigint: lease   $3 bigint: worker
-- Should this worker vanish too, the note tells that this job ran; its neighbours then lose nothing.
-- locks: the lease, NO KEY UPDATE
update pipeline.lease l set started = l.started || $1::bigint
where l.id = $2 and l.worker = $3 and $1 = any(l.ids)
returning l.id
