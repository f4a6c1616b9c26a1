-- limits: the settings of a transaction that asks for a plan, until its end
-- locks: none
select set_config('lock_timeout', '100ms', true), set_config('statement_timeout', '2s', true),
    set_config('idle_in_transaction_session_timeout', '10s', true),
    set_config('plan_cache_mode', 'force_generic_plan', true)
