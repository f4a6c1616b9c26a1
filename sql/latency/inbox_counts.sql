-- inbox_counts: how many timings were rejected in SQL, and how many dropped since the inbox was full; since the tables exist
-- locks: none
select
    (select last_value + is_called::int from pipeline.timing_rejected) as rejected,
    (select last_value + is_called::int from pipeline.timing_dropped) as dropped
