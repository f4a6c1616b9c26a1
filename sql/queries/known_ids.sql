-- known_ids: the fingerprints of statements of pg_stat_statements, as far as they are known
-- locks: none
select dbid, userid, queryid, toplevel, fingerprint from pipeline.query_id
