-- settle: notes a sweep, and moves the line below which no job can appear any more
-- $1 text: queue   $2 smallint: priority   $3 text: the oldest transaction that `look` saw running
-- $4 bool: whether the sweep dealt with everything it found   $5 bool: whether it searched everything
-- locks: the lane's row
update pipeline.lane l
set
    settled = case when $4 and l.settling_xid < $3::text::xid8 then greatest(l.settled, l.settling) else l.settled end,
    settling = case when l.settling_xid >= $3::text::xid8 or not $4 then l.settling else l.mark end,
    settling_xid = case when l.settling_xid >= $3::text::xid8 or not $4 then l.settling_xid else pg_current_xact_id() end,
    swept_at = pipeline.now(),
    searched_at = case when $4 and $5 then pipeline.now() else l.searched_at end
where l.queue = $1 and l.priority = $2
