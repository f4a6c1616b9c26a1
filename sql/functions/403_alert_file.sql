-- Makes the rules that came from a configuration be these: an array of objects with the columns of pipeline.alert_rule. Rules
-- of other origins stay as they are; one that came with pgreflex is taken over, and comes back once the file leaves it out.
-- Returns what could not be written, with the reason; such a rule stays as it was.
-- locks: advisory (1885697639, 32), so that two daemons that start take turns
create or replace function pipeline.follow_alert_rules(p_rules jsonb) returns table (name text, problem text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_rule record;
    v_gone text[];
begin
    perform pg_advisory_xact_lock(1885697639, 32);
    for v_rule in
        select j.*, r.origin
        from jsonb_to_recordset(p_rules) as j (
            name text, metric text, series text, sources text[], labels jsonb, query text, over text, comparison text,
            threshold float8, clear_threshold float8, need int, keep_firing int, hold_max int, min_samples int,
            max_instances int, severity text, message text, runbook text, enabled bool
        )
        left join pipeline.alert_rule as r on r.name = j.name
    loop
        if v_rule.origin = 'user' then
            return query select v_rule.name, 'there is a rule of this name that did not come from a file';
            continue;
        end if;
        begin
            perform pipeline.alert_rule_set(
                v_rule.name, v_rule.metric, v_rule.series, v_rule.threshold, v_rule.comparison, v_rule.over::interval,
                v_rule.need, v_rule.keep_firing, v_rule.hold_max, v_rule.min_samples, v_rule.severity, v_rule.message,
                v_rule.enabled, v_rule.query, v_rule.labels, v_rule.sources, v_rule.clear_threshold, v_rule.runbook,
                v_rule.max_instances, 'file'
            );
        exception when others then
            return query select v_rule.name, sqlerrm;
        end;
    end loop;
    with gone as (
        delete from pipeline.alert_rule as r
        where r.origin = 'file' and not exists (select from jsonb_array_elements(p_rules) as j where j ->> 'name' = r.name)
        returning r.name
    )
    select array_agg(g.name) into v_gone from gone as g;
    delete from pipeline.alert_builtin as b where b.name = any(v_gone);
    if found then
        perform pipeline.seed_alert_rules();
    end if;
end
$$;
revoke execute on function pipeline.follow_alert_rules(jsonb) from public;
