"""Where settings come from, which one wins, and that none of their secrets can be seen."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from pipeline import errors
from pipeline.cli.reference import settings
from pipeline.config import Config, Loaded, is_secret, keys, load
from pipeline.config_sources import Given, variables
from pipeline.errors import ConfigError, PgreflexError

DOCS = Path(__file__).parents[2] / "docs"


def given(tmp_path: Path, toml: str = "", flags: dict[str, Given] | None = None, **env: str) -> Loaded:
    if toml:
        (tmp_path / "pgreflex.toml").write_text(toml)
    return load(directory=tmp_path, env=env, flags=flags)


def shown(loaded: Loaded) -> dict[str, tuple[str, str]]:
    return {one.key: (one.value, one.source) for one in loaded.settings()}


def refused(tmp_path: Path, toml: str = "", **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        given(tmp_path, toml, **env)
    assert caught.value.hint
    return caught.value.message


def test_without_any_source_every_setting_is_the_default(tmp_path: Path) -> None:
    loaded = given(tmp_path)
    assert loaded.config == Config()
    assert {one.source for one in loaded.settings()} == {"default"}


def test_flags_win_over_variables_which_win_over_the_file(tmp_path: Path) -> None:
    toml = "[http]\nport = 1\nhost = 'a'\n[jobs]\ndrain_seconds = 3\n"
    flags = {"http.port": Given(9, "--port")}
    loaded = given(tmp_path, toml, flags, PGREFLEX_HTTP_PORT="2", PGREFLEX_HTTP_HOST="b")
    told = shown(loaded)
    assert told["http.port"] == ("9", "--port")
    assert told["http.host"] == ("b", "env PGREFLEX_HTTP_HOST")
    assert told["jobs.drain_seconds"] == ("3.0", f"{tmp_path}/pgreflex.toml:5")
    assert told["cache.max_staleness_seconds"] == ("1.0", "default")


def test_a_mapping_of_a_later_source_replaces_that_of_an_earlier_one_whole(tmp_path: Path) -> None:
    loaded = given(tmp_path, "[jobs.queues]\nmail = 1\n", PGREFLEX_JOBS_QUEUES="sms:2, *:5,plain")
    assert loaded.config.jobs.queues == {"sms": 2, "*": 5, "plain": 10}


def test_the_pgreflex_address_wins_over_database_url(tmp_path: Path) -> None:
    loaded = given(tmp_path, DATABASE_URL="postgres://a/b", PGREFLEX_DSN="postgres://c/d")
    assert shown(loaded)["dsn"] == ("postgresql://c/d", "env PGREFLEX_DSN")
    assert shown(given(tmp_path, DATABASE_URL="postgres://a/b"))["dsn"] == (
        "postgresql://a/b",
        "env DATABASE_URL",
    )


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert given(tmp_path, PGREFLEX_HTTP_ADMIN_TOKEN="").config.http.admin_token is None


def test_an_empty_secret_in_the_file_is_refused(tmp_path: Path) -> None:
    assert "http.admin_token" in refused(tmp_path, "[http]\nadmin_token = ''\n")


def test_both_spellings_of_a_variable_mean_the_same(tmp_path: Path) -> None:
    for name in ("PGREFLEX_HTTP_PORT", "PGREFLEX_HTTP__PORT"):
        assert given(tmp_path, **{name: "12"}).config.http.port == 12


def test_both_spellings_at_once_are_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, PGREFLEX_HTTP_PORT="1", PGREFLEX_HTTP__PORT="2")
    assert "PGREFLEX_HTTP_PORT" in told
    assert "PGREFLEX_HTTP__PORT" in told


def test_no_two_settings_share_a_variable() -> None:
    names = [name for key in keys() for name in variables(key)]
    names += [f"{name}_FILE" for key in keys() if is_secret(key) for name in variables(key)]
    assert len(names) == len(set(names))


def test_a_secret_is_read_from_a_file_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open sesame, now\n")
    loaded = given(tmp_path, PGREFLEX_HTTP_ADMIN_TOKEN_FILE=str(tmp_path / "token"))
    assert loaded.config.http.admin_token is not None
    assert loaded.config.http.admin_token.get_secret_value() == "open sesame, now"
    assert shown(loaded)["http.admin_token"] == (
        "********",
        f"file {tmp_path}/token (env PGREFLEX_HTTP_ADMIN_TOKEN_FILE)",
    )


def test_an_address_may_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://u:p@h/d\n")
    assert given(tmp_path, PGREFLEX_DSN_FILE=str(tmp_path / "dsn")).config.dsn == "postgresql://u:p@h/d"


def test_what_is_no_secret_is_not_read_from_a_file(tmp_path: Path) -> None:
    assert "PGREFLEX_HTTP_HOST_FILE" in refused(tmp_path, PGREFLEX_HTTP_HOST_FILE="x")


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"PGREFLEX_DSN_FILE names /nowhere/dsn.*No such file"):
        given(tmp_path, PGREFLEX_DSN_FILE="/nowhere/dsn")


def test_variables_that_kubernetes_makes_for_a_service_are_left_alone(tmp_path: Path) -> None:
    given(
        tmp_path,
        PGREFLEX_SERVICE_HOST="10.0.0.1",
        PGREFLEX_SERVICE_PORT="8787",
        PGREFLEX_SERVICE_PORT_HTTP="8787",
        PGREFLEX_PORT="tcp://10.0.0.1:8787",
        PGREFLEX_PORT_8787_TCP="tcp://10.0.0.1:8787",
        PGREFLEX_PORT_8787_TCP_ADDR="10.0.0.1",
    )


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("prot = 1", "pgreflex.toml:1: there is no setting prot; did you mean http.port?"),
        (
            "[http]\n\nviewer_tokn = 'x'",
            "pgreflex.toml:3: there is no setting http.viewer_tokn; did you mean http.viewer_token?",
        ),
        ("[htp]\nport = 1", "pgreflex.toml:1: there is no setting htp; did you mean http?"),
        ("http = 5", "pgreflex.toml:1: http is a table; write [http]"),
        ("a = 1\nb = 2\n", "pgreflex.toml:2: there is no setting b"),
    ],
)
def test_a_key_that_does_not_exist_names_its_line_and_the_nearest(tmp_path: Path, toml: str, told: str) -> None:
    assert told in refused(tmp_path, toml)


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[http]\nport = 'x'", "http.port ({0}/pgreflex.toml:2) should be a whole number, not 'x'"),
        ("[feed]\ntwo_phase = 'maybe'", "feed.two_phase ({0}/pgreflex.toml:2) should be true or false"),
        ("[log]\nlevel = 'loud'", "log.level ({0}/pgreflex.toml:2) should be 'debug', 'info', 'warning' or"),
        ("[jobs]\ndrain_seconds = -1", "jobs.drain_seconds ({0}/pgreflex.toml:2) should be greater than or"),
        ("[jobs.queues]\nmail = 0", "jobs.queues ({0}/pgreflex.toml:1) should be greater than 0"),
        ("[jobs]\nqueues = {{}}", "jobs.queues ({0}/pgreflex.toml:2) should be something, or left out"),
        ("dsn = 5", "dsn ({0}/pgreflex.toml:1) should be text"),
    ],
)
def test_a_value_of_the_wrong_kind_names_key_source_and_what_was_expected(
    tmp_path: Path, toml: str, told: str
) -> None:
    assert told.format(tmp_path) in refused(tmp_path, toml.replace("{{}}", "{}"))


def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, PGREFLEX_HTTP_VIEWER_TOKEN="fifteen letters")
    assert told == "http.viewer_token (env PGREFLEX_HTTP_VIEWER_TOKEN) should be at least 16 characters long"


def test_a_secret_of_the_wrong_kind_is_not_repeated(tmp_path: Path) -> None:
    assert "4711" not in refused(tmp_path, "[http]\nadmin_token = 4711\n")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(refused(tmp_path, "[http]\nport = 'x'\n[log]\nlevel = 1\n").splitlines()) == 2


@pytest.mark.parametrize(
    ("pairs", "user", "password", "host"),
    [
        ("host=db user=app password=secret dbname=shop", "app", "secret", "db"),
        (
            r"host = db user = 'app' password = 'it\'s = a @ \\ secret' dbname=shop",
            "app",
            r"it's = a @ \ secret",
            "db",
        ),
        ("user=app password=a+b%20c host=/run/pg dbname=shop", "app", "a+b%20c", "/run/pg"),
    ],
)
def test_pairs_become_a_url_that_means_the_same(
    tmp_path: Path, pairs: str, user: str, password: str, host: str
) -> None:
    loaded = given(tmp_path, PGREFLEX_DSN=pairs)
    query = parse_qs(urlsplit(loaded.config.dsn or "").query)
    assert query == {"user": [user], "password": [password], "host": [host], "dbname": ["shop"]}
    assert shown(loaded)["dsn"][0].count("********") == 1
    assert "secret" not in shown(loaded)["dsn"][0]


def test_what_only_libpq_understands_is_left_out_of_an_address(tmp_path: Path) -> None:
    tuned = "connect_timeout=10&sslmode=disable&channel_binding=prefer&keepalives_idle=5"
    assert given(tmp_path, PGREFLEX_DSN=f"postgresql://u:p%40@h/d?{tuned}").config.dsn == (
        "postgresql://u:p%40@h/d?sslmode=disable"
    )
    assert given(tmp_path, PGREFLEX_DSN="host=h connect_timeout=3").config.dsn == "postgresql://?host=h"
    assert given(tmp_path, PGREFLEX_DSN="postgresql://h/d?connect_timeout=3").config.dsn == "postgresql://h/d"


def test_channel_binding_is_not_dropped_where_it_is_required(tmp_path: Path) -> None:
    told = refused(tmp_path, PGREFLEX_DSN="postgresql://u:hunter2@h/d?sslmode=require&channel_binding=require")
    assert "channel binding" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://app:hunter2@db/shop",
        "postgresql+asyncpg://app:hunter%402%2F@db/shop",
        "postgresql://app:hunter2@db1:5432,db2:5433/shop?target_session_attrs=read-write",
        "postgresql://db/shop?user=app&password=hunter2",
        "host=db user=app password=hunter2",
        "host=db user=app password = 'hunter2 and more'",
    ],
)
def test_no_password_of_an_address_is_ever_shown(tmp_path: Path, dsn: str) -> None:
    loaded = given(tmp_path, PGREFLEX_DSN=dsn, PGREFLEX_LISTEN_DSN=dsn)
    everything = f"{loaded!r} {loaded.config} {loaded.settings()}"
    everything += msgspec.json.encode([vars(one) for one in loaded.settings()]).decode()
    assert "hunter" not in everything
    assert "and more" not in everything
    assert "********" in everything


def test_tokens_and_webhooks_are_never_shown(tmp_path: Path) -> None:
    loaded = given(
        tmp_path,
        PGREFLEX_HTTP_ADMIN_TOKEN="hunter2 and so on",
        PGREFLEX_ALERTS_WEBHOOK_URL="https://user:hunter2@hooks.example.com/T0/hunter2?k=hunter2",
        PGREFLEX_ALERTS_WEBHOOK_SECRET="hunter2",
    )
    assert "hunter2" not in f"{loaded!r} {loaded.config} {loaded.settings()}"
    assert shown(loaded)["alerts.webhook_url"][0] == "https://hooks.example.com/********"


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().dsn = "x"  # type: ignore[misc]


def test_a_configuration_of_its_own_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSN", "postgresql://elsewhere/db")
    monkeypatch.setenv("LOG", "{}")
    assert Config() == Config.model_construct()


def test_the_page_about_the_configuration_lists_what_there_is() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    told = "\n" + settings()
    assert page.endswith("## Settings\n" + told), "renew it with `python -m pipeline.cli.reference`"


def test_the_example_in_the_page_about_the_configuration_is_valid(tmp_path: Path) -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert given(tmp_path, example).config.jobs.queues == {"mail": 10, "*": 5}


def test_every_error_code_has_its_heading_and_every_heading_its_code() -> None:
    def codes(kind: type[PgreflexError]) -> set[str]:
        return {kind.code}.union(
            *(codes(one) for one in kind.__subclasses__() if one.__module__ == errors.__name__)
        )

    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)[1:]
    told = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(told) == codes(PgreflexError) | {"defect"}
    assert all(len(text.split()) > 10 for text in told.values())


def test_encryption_keys_are_given_in_order_and_never_shown(tmp_path: Path) -> None:
    first, second = "A" * 43, "ab" * 32
    (tmp_path / "keys").write_text(f"{first}\n{second}\n")
    ways = [
        given(tmp_path, PGREFLEX_JOBS_ENCRYPTION_KEYS=f"{first}, {second}"),
        given(tmp_path, PGREFLEX_JOBS_ENCRYPTION_KEYS_FILE=str(tmp_path / "keys")),
        given(tmp_path, f"[jobs]\nencryption_keys = ['{first}', '{second}']\n"),
    ]
    for loaded in ways:
        assert [key.get_secret_value() for key in loaded.config.jobs.encryption_keys] == [first, second]
        assert shown(loaded)["jobs.encryption_keys"][0] == "********,********"
        assert first not in repr(loaded)
    assert shown(given(tmp_path / "none"))["jobs.encryption_keys"][0] == "none"


def test_what_is_no_encryption_key_is_refused_without_being_repeated(tmp_path: Path) -> None:
    told = refused(tmp_path, PGREFLEX_JOBS_ENCRYPTION_KEYS=f"{'A' * 43},hunter2")
    assert "jobs.encryption_keys" in told
    assert "PGREFLEX_JOBS_ENCRYPTION_KEYS" in told
    assert "a key of 32 bytes" in told
    assert "hunter2" not in told


def test_channels_are_tables_or_a_json_object_and_their_secrets_are_not_shown(tmp_path: Path) -> None:
    toml = """
        [alerts.channels.ops]
        type = "webhook"
        url = "https://s3cret"
        match = [{ rule = "slow*", "label.team" = "ops" }]
        [alerts.channels.page]
        type = "command"
        command = ["page", "--now"]
        interval = 5
    """
    loaded = given(tmp_path, toml)
    assert [str(one) for one in loaded.config.alerts.channels.values()] == ["webhook", "command"]
    assert loaded.config.alerts.channels["ops"].match == ({"rule": "slow*", "label.team": "ops"},)
    assert loaded.config.alerts.channels["page"].interval == 5
    assert shown(loaded)["alerts.channels"][0] == "ops:webhook,page:command"
    assert "s3cret" not in repr(loaded.config)
    loaded = given(tmp_path, PGREFLEX_ALERTS_CHANNELS='{"l": {"type": "log"}}')
    assert shown(loaded)["alerts.channels"][0] == "l:log"


@pytest.mark.parametrize(
    ("channel", "reason"),
    [
        ("type = 'pager'", "alerts.channels.ops.type"),
        ("type = 'webhook'", "given url, which the type webhook needs"),
        ("type = 'email'\nhost = 'h'", "given sender and to, which the type email needs"),
        ("type = 'slack'\nurl = 's3cret'\nport = 1", "without port, which the type slack does not have"),
        ("type = 'log'\nmatch = [{ state = 's3cret' }]", "there is no attribute state"),
        ("type = 'log'\nnonsense = 's3cret'", "alerts.channels.ops.nonsense"),
        ("type = 'log'\ninterval = -1", "alerts.channels.ops.interval"),
    ],
)
def test_a_channel_that_cannot_be_meant_is_refused_and_what_is_wrong_is_named(
    channel: str, reason: str, tmp_path: Path
) -> None:
    told = refused(tmp_path, f"[alerts.channels.ops]\n{channel}\n")
    assert reason in told
    assert "s3cret" not in told


def test_rules_of_alerts_are_tables_or_a_json_array(tmp_path: Path) -> None:
    rules = "[[alerts.rules]]\nname = 'a'\nquery = 'select 1'\n[[alerts.rules]]\nname = 'b'\n"
    toml = f"[alerts]\nwebhook_secret = 's'\n\n{rules}"
    loaded = given(tmp_path, toml)
    assert [(rule.name, rule.query, rule.need) for rule in loaded.config.alerts.rules] == [
        ("a", "select 1", 3),
        ("b", None, 3),
    ]
    assert shown(loaded)["alerts.rules"] == ("a,b", f"{tmp_path}/pgreflex.toml:4")
    loaded = given(tmp_path, PGREFLEX_ALERTS_RULES='[{"name": "c", "labels": {"x": "y"}}]')
    assert [rule.labels for rule in loaded.config.alerts.rules] == [{"x": "y"}]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("name = ''", "alerts.rules"),
        ("name = 'a'\nthresold = 3", "Extra inputs"),
        ("name = 'a'\ncomparison = '='", "'>', '>=', '<' or '<='"),
        ("name = 'a'\nneed = 0", "greater than 0"),
        ("name = 'a'\n[[alerts.rules]]\nname = 'a'", "a is there twice"),
    ],
)
def test_rules_of_alerts_that_are_none_are_refused(rule: str, reason: str, tmp_path: Path) -> None:
    assert reason in refused(tmp_path, f"[[alerts.rules]]\n{rule}\n")
