-- history: what was installed
-- locks: none
select name, checksum from pipeline.migration
