-- standing: where the feed stands: its epoch, its leader, the number of the last batch and the position it reached
-- locks: none
-- index: ring_0_pkey, ring_1_pkey
select
    pipeline.epoch() as epoch,
    pipeline.lineage() as lineage,
    l.term,
    l.pid,
    greatest(l.seq, (select max(seq) from pipeline.ring)) as seq,
    coalesce(
        (select r.position from pipeline.ring r
         where r.position is not null and r.lineage = pipeline.lineage() order by r.seq desc limit 1),
        l.position) as position,
    l.flush_until::text::bigint as flush_until
from pipeline.leader l
