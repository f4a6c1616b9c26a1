-- settings: the role, and the settings that the result of a query may depend on, in a fixed order
-- locks: none
select array[
    current_user::text, session_user::text, current_database()::text, current_setting('search_path'),
    current_setting('TimeZone'), current_setting('timezone_abbreviations'), current_setting('DateStyle'),
    current_setting('IntervalStyle'), current_setting('extra_float_digits'), current_setting('bytea_output'),
    current_setting('lc_monetary'), current_setting('lc_numeric'), current_setting('lc_time'),
    current_setting('xmlbinary'), current_setting('xmloption'), current_setting('default_text_search_config'),
    current_setting('array_nulls'), current_setting('standard_conforming_strings'),
    current_setting('backslash_quote'), current_setting('transform_null_equals'), current_setting('row_security'),
    current_setting('gin_fuzzy_search_limit')
] as settings
