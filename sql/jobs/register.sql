-- register: a new worker; returns its id
-- $1 text: name   $2 text[]: queues
-- locks: none
insert into pipeline.worker (name, queues, started_at, seen_at)
values ($1, $2, pipeline.now(), pipeline.now())
returning id
