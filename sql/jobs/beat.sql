-- beat: a worker lives; makes its row again if it was pruned meanwhile
-- $1 bigint: worker   $2 text: name   $3 text[]: queues
-- locks: the worker's row
insert into pipeline.worker (id, name, queues, started_at, seen_at)
overriding system value
values ($1, $2, $3, pipeline.now(), pipeline.now())
on conflict (id) do update set seen_at = excluded.seen_at
