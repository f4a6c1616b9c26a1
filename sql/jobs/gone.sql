-- gone: which of these jobs have ended, because somebody cancelled them
-- $1 bigint[]: jobs
-- locks: none
select g.id from unnest($1::bigint[]) g (id) where not exists (select from pipeline.job j where j.id = g.id)
