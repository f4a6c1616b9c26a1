"""The embedded server's life: it keeps its data, and nothing of it stays behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.embedded import EmbeddedServer, cluster
from pipeline.embedded import server as server_module
from pipeline.embedded.account import Account
from pipeline.errors import Busy, EmbeddedServerError
from tests.crash.embedded_kit import FAST, NOBODY, ROOT, ask, directory, eventually, left, owner

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
EVERYBODY = [
    pytest.param(os.geteuid(), id="myself"),
    pytest.param(NOBODY, id="ordinary-user", marks=as_root),
]


@pytest.fixture
def home() -> Iterator[Path]:
    with directory() as base:
        yield base / "home"


@pytest.fixture(params=EVERYBODY)
def uid(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def own_home(uid: int) -> Iterator[Path]:
    with directory(uid=uid) as base:
        yield base / "home"


def test_a_stopped_server_leaves_no_process_and_no_socket_directory(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    with server:
        sockets = str(server._sockets)
        assert ask(server, "select 1") == "1"
        assert server.running
        assert server.pid is not None
        assert len(left(home, sockets)) > 5
    assert left(home, sockets) == []
    assert not server.running
    assert server.pid is None
    server.stop()


def test_an_owner_keeps_its_data_over_a_crash_and_a_stop(uid: int, own_home: Path) -> None:
    with owner(own_home, uid) as mine:
        mine.tell("ask create table kept as select generate_series(1, 1000)")
        before, after = mine.told, mine.tell("crash")
        assert after["pid"] != before["pid"]
        assert after["dsn"] == before["dsn"]
        assert mine.tell("ask select count(*) from kept")["answer"] == "1000"
        mine.tell("stop")
        assert left(own_home, before["sockets"]) == []
    with owner(own_home, uid) as again:
        assert again.tell("ask select count(*) from kept")["answer"] == "1000"
        assert psutil.Process(again.told["pid"]).uids().effective != 0


def test_the_server_ends_when_its_owner_is_killed(uid: int, own_home: Path) -> None:
    with owner(own_home, uid) as mine:
        sockets = mine.told["sockets"]
        assert len(left(own_home, sockets)) > 5
        mine.end(signal.SIGKILL)
        assert eventually(lambda: left(own_home, sockets) == []), left(own_home, sockets)
    assert "database system is shut down" in (own_home / "server.log").read_text()


def test_the_server_ends_when_its_owner_just_exits(own_home: Path, uid: int) -> None:
    with owner(own_home, uid) as mine:
        sockets = mine.told["sockets"]
        mine.process.communicate()
        assert mine.process.returncode == 0
        assert eventually(lambda: left(own_home, sockets) == []), left(own_home, sockets)


def test_a_forked_child_that_lives_on_does_not_keep_the_server(home: Path) -> None:
    with owner(home, os.geteuid()) as mine:
        sockets, child = mine.told["sockets"], mine.tell("fork")["child"]
        try:
            mine.process.send_signal(signal.SIGKILL)
            mine.process.wait()
            assert eventually(lambda: left(home, sockets) == []), left(home, sockets)
            with EmbeddedServer(home, settings=FAST) as successor:
                assert ask(successor, "select 1") == "1"
            assert psutil.pid_exists(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_signal_to_the_whole_service_leaves_the_guard_at_its_post(home: Path) -> None:
    with owner(home, os.geteuid()) as mine:
        sockets = mine.told["sockets"]
        guards = [int(line.split()[0]) for line in left(home, sockets) if "pgreflex-guard" in line]
        assert len(guards) == 1
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(guards[0], number)
        mine.end(signal.SIGKILL)
        assert eventually(lambda: left(home, sockets) == []), left(home, sockets)


def test_the_terminals_ctrl_c_does_not_reach_the_server(home: Path) -> None:
    with EmbeddedServer(home, settings=FAST) as server:
        assert server.pid is not None
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)


def test_a_server_that_dies_by_itself_is_seen_and_can_be_started_again(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    server.start()
    sockets, pid = str(server._sockets), server.pid
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    assert eventually(lambda: not server.running)
    assert eventually(lambda: left(home, sockets) == []), left(home, sockets)
    server.start()
    assert ask(server, "select 1") == "1"
    server.stop()
    assert left(home, sockets) == []


def test_a_smart_stop_that_waits_in_vain_becomes_a_fast_one(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    server.start()
    argv, env = server.command("psql", "-Xqc", "select pg_sleep(60)")
    sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'"
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        assert eventually(lambda: ask(server, sleeps) == "1")
        server.stop("smart", patience=0.5)
        assert client.wait(timeout=10) != 0
    assert left(home, str(server._sockets)) == []
    log = server.log_path.read_text()
    assert log.index("smart shutdown request") < log.index("fast shutdown request")


def test_a_server_that_does_not_answer_is_killed_in_the_end(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    server.stop("fast", patience=0.3)
    assert left(home, str(server._sockets)) == []


def test_starting_tells_what_it_waits_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "NOTE_EVERY", 0.0)
    heard: list[str] = []
    server = EmbeddedServer(home, settings=FAST | {"checkpoint_timeout": "1h", "max_wal_size": "4GB"})
    server.start()
    ask(server, "create table big as select i, md5(i::text) from generate_series(1, 300000) i")
    server.kill()
    server.start(on_wait=heard.append)
    assert ask(server, "select count(*) from big") == "300000"
    server.stop()
    assert any(note.startswith("recovering after a crash") for note in heard), heard


def test_a_start_that_takes_too_long_says_so_and_leaves_nothing(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    with pytest.raises(EmbeddedServerError, match="not ready in time"):
        server.start(patience=0.0)
    assert left(home, str(server._sockets)) == []


def test_a_stop_during_the_start_ends_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With pre_auth_delay a server lives, and is ready for nobody during that time.
    server = EmbeddedServer(home, settings=FAST | {"pre_auth_delay": "20"})
    monkeypatch.setattr(server_module, "NOTE_EVERY", 0.0)
    failures: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except EmbeddedServerError as error:
            failures.append(error)

    starter = threading.Thread(target=start)
    starter.start()
    assert eventually(lambda: server.running)
    server.stop()
    starter.join(timeout=20)
    assert "was stopped while it started" in str(failures[0])
    assert left(home, str(server._sockets)) == []


def test_a_stop_out_of_the_start_itself_as_by_a_signal_handler_ends_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "NOTE_EVERY", 0.0)
    server = EmbeddedServer(home, settings=FAST | {"pre_auth_delay": "20"})
    with pytest.raises(EmbeddedServerError, match="was stopped while it started"):
        server.start(on_wait=lambda note: server.stop())
    assert left(home, str(server._sockets)) == []


def test_a_signal_handler_cannot_take_away_what_a_start_works_with(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sockets = cluster.make_sockets

    def interrupted(account: Account, port: int, former: Path | None) -> Path:
        server.stop()
        return make_sockets(account, port, former)

    monkeypatch.setattr(cluster, "make_sockets", interrupted)
    server = EmbeddedServer(home, settings=FAST)
    with pytest.raises(EmbeddedServerError, match="was stopped while it started"):
        server.start()
    assert left(home, str(server._sockets)) == []


def test_a_crash_ends_a_busy_backend_at_once(home: Path) -> None:
    server = EmbeddedServer(home, settings=FAST)
    server.start()
    busy = "select count(*) from generate_series(1, 1000000000)"
    argv, env = server.command("psql", "-Xqc", busy)
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        seen = f"select count(*) from pg_stat_activity where state = 'active' and query = '{busy}'"
        assert eventually(lambda: ask(server, seen) == "1")
        server.kill()
        assert left(home, str(server._sockets)) == []
        assert client.wait(timeout=10) != 0


def test_an_owner_killed_while_it_makes_the_cluster_leaves_none_that_is_used(home: Path) -> None:
    script = "import sys; from pathlib import Path; from pipeline.embedded import EmbeddedServer\n"
    script += "EmbeddedServer(Path(sys.argv[1])).start()"
    with subprocess.Popen([sys.executable, "-c", script, home], cwd=ROOT) as maker:
        assert eventually(lambda: any(home.glob("data*/PG_VERSION")))
        family = [*psutil.Process(maker.pid).children(recursive=True), psutil.Process(maker.pid)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    assert not (home / "data").exists()
    with EmbeddedServer(home, settings=FAST) as server:
        assert ask(server, "select count(*) from pg_database") == "3"
    assert [path.name for path in home.glob("data*")] == ["data"]


def test_of_two_first_starts_at_once_one_wins_and_one_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.embedded.cluster.BUSY_PATIENCE", 0.0)
    servers = [EmbeddedServer(home, settings=FAST) for _ in range(2)]
    outcomes: list[BaseException | None] = []

    def start(server: EmbeddedServer) -> None:
        try:
            server.start()
            outcomes.append(None)
        except Busy as error:
            outcomes.append(error)

    starters = [threading.Thread(target=start, args=[server]) for server in servers]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Busy", "NoneType"]
    assert sum(server.running for server in servers) == 1
    for server in servers:
        server.stop()


def test_two_servers_on_one_home_are_refused_with_the_pid(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.embedded.cluster.BUSY_PATIENCE", 0.3)
    with EmbeddedServer(home, settings=FAST) as server:
        with pytest.raises(Busy, match=f"pid {server.pid}") as raised:
            EmbeddedServer(home, settings=FAST).start()
        assert raised.value.hint
        assert ask(server, "select 1") == "1"


def test_a_start_waits_for_a_predecessor_that_shuts_down(home: Path) -> None:
    first, second = EmbeddedServer(home, settings=FAST), EmbeddedServer(home, settings=FAST)
    first.start()
    starter = threading.Thread(target=second.start)
    starter.start()
    starter.join(timeout=0.5)
    assert starter.is_alive()
    first.stop()
    starter.join(timeout=20)
    assert ask(second, "select 1") == "1"
    second.stop()


def test_a_launch_that_fails_half_way_leaves_no_socket_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_processes(sockets: Path, pid_file: Path) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(server_module, "Guard", no_more_processes)
    server = EmbeddedServer(home, settings=FAST)
    with pytest.raises(EmbeddedServerError, match="temporarily unavailable"):
        server.start()
    assert server._sockets is not None
    assert left(home, str(server._sockets)) == []
