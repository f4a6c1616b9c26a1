-- ask_lanes: asks for the lanes that jobs copied into the table need, and wakes the workers
-- $1 text: queue   $2 int: priority   $3 text[]: keys
-- locks: none
select pipeline.request_lane($1, $2::int, k.key), pipeline.ring_workers($1) from unnest($3::text[]) k (key)
