-- archive: drops the days of the archive that are past their time; returns how many
-- $1 float8: seconds that an ended job is kept
-- locks: see the function
select dropped from pipeline.maintain_archive(make_interval(secs => $1))
