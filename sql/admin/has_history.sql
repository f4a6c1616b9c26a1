-- has_history: the oid of the record of migrations, or null where nothing is installed
-- locks: none
select to_regclass('pipeline.migration')
