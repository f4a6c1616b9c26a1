-- check_watches: follows what was done to watched tables since the last look
-- locks: rows of pipeline.watch; SHARE ROW EXCLUSIVE on a table that lacks triggers, for at most 100 ms of waiting
select tag, finding from pipeline.check_watches()
