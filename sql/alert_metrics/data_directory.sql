-- data_directory: where the data lies on the server, and when the folder was changed, as seconds since the epoch
-- locks: none
select current_setting('data_directory') as path, extract(epoch from f.modification)::float8 as modified,
    extract(epoch from f.change)::float8 as changed
from pg_stat_file('.') as f
