-- shared_settings: a digest of the settings that this session, role or database has of its own
-- Those that change no result change the digest, too: then less is shared.
-- locks: none
select md5(coalesce(string_agg(s.name || '=' || s.setting, E'\n' order by s.name), ''))
from pg_settings s
where s.source not in ('default', 'configuration file', 'command line', 'environment variable', 'override')
    and s.name <> 'application_name'
