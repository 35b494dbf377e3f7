"""Whatever a crash leaves behind, the next start clears it up and the data are there."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from pgqueue import embedded
from pgqueue.embedded import locks
from pgqueue.embedded.account import account_for
from pgqueue.embedded.cluster import Cluster
from pgqueue.embedded.places import Place
from pgqueue.embedded.server import _cluster
from pgqueue.errors import EmbeddedFailed

from .conftest import FAST, runs


def as_server(directory: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    options = account_for(directory / "data").popen_options()
    return subprocess.run(command, check=True, **options)


@pytest.fixture
def cluster(directory: Path) -> Cluster:
    return _cluster(Place(directory))


def remember(url: str, word: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("create table if not exists words (word text)")
        connection.execute("insert into words values (%s)", [word])


def remembers(url: str, word: str) -> bool:
    with psycopg.connect(url) as connection:
        cursor = connection.execute("select 1 from words where word = %s", [word])
        return cursor.fetchone() is not None


def kill_server(server: embedded.EmbeddedServer) -> None:
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    assert locks.wait_until_free(server.directory / "server.lock", 10)


def test_after_kill_9_of_the_server_it_starts_again_with_all_that_was_committed(
    directory: Path,
) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        remember(server.url, "kill")
        old = server.pid
        kill_server(server)
        server.ensure_running()
        assert server.pid != old
        assert remembers(server.url, "kill")


def test_a_busy_query_that_outlives_its_server_does_not_delay_the_next_one(
    directory: Path,
) -> None:
    with (
        embedded.start(directory, _settings=FAST) as server,
        closing(psycopg.connect(server.url)) as busy,
    ):
        pid = busy.info.backend_pid
        # Sent, not awaited: minutes of work that never waits for anything.
        busy.pgconn.send_query(b"select count(*) from generate_series(1, 1e10::bigint)")
        with psycopg.connect(server.url, autocommit=True) as watcher:
            query = "select state from pg_stat_activity where pid = %s"
            while watcher.execute(query, [pid]).fetchone() != ("active",):
                pass
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        server.ensure_running()
        with psycopg.connect(server.url):
            pass


def test_a_second_start_in_the_same_process_revives_a_dead_server(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        kill_server(server)
        with embedded.start(directory, _settings=FAST) as again, psycopg.connect(again.url):
            pass


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_under_its_users_keeps_all_that_was_committed(
    directory: Path, mode: embedded.server.Mode
) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        remember(server.url, mode)
        old = server.pid
        server.restart(mode)
        assert server.pid != old
        assert remembers(server.url, mode)
    assert not runs(directory)


def test_a_server_stopped_under_its_users_stays_so_until_it_is_wanted(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        embedded.stop(directory)
        assert not runs(directory)
        assert server.pid is None
        server.ensure_running()
        assert runs(directory)


def test_a_stale_pid_that_another_process_has_now_does_not_keep_it_from_starting(
    directory: Path, cluster: Cluster
) -> None:
    # A process of the server's own user: the one case in which Postgres believes the stale file.
    sleeper = subprocess.Popen(["/bin/sleep", "60"], **cluster.account.popen_options())
    try:
        with embedded.start(directory, _settings=FAST) as server:
            kill_server(server)
            for name in ("data/postmaster.pid", "run/.s.PGSQL.5432.lock"):
                stale = directory / name
                lines = stale.read_text().splitlines()
                stale.write_text("\n".join([str(sleeper.pid), *lines[1:]]) + "\n")
            server.ensure_running()
            with psycopg.connect(server.url):
                pass
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_dead_socket_is_replaced(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        kill_server(server)
        assert (directory / "run" / ".s.PGSQL.5432").is_socket()
    with embedded.start(directory, _settings=FAST) as server, psycopg.connect(server.url):
        pass


def test_a_start_killed_within_initdb_is_begun_anew(folder: Path) -> None:
    directory = folder / "new"
    directory.mkdir(0o711)
    (directory / "start.lock").touch()
    half = directory / "data.new-0123abcd"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with embedded.start(directory, _settings=FAST) as server, psycopg.connect(server.url):
        assert not half.exists()


def test_data_without_their_version_are_refused_and_left_alone(folder: Path) -> None:
    directory = folder / "new"
    (directory / "data").mkdir(parents=True)
    (directory / "start.lock").touch()
    (directory / "data" / "precious").touch()
    with pytest.raises(EmbeddedFailed, match=r"PG_VERSION is missing.: restore"):
        embedded.start(directory, _settings=FAST)
    assert (directory / "data" / "precious").exists()


def test_what_the_server_said_last_is_in_the_error(directory: Path) -> None:
    with pytest.raises(EmbeddedFailed, match='invalid value for parameter "max_connections"'):
        embedded.start(directory, _settings=FAST | {"max_connections": "many"})
    assert not runs(directory)
    with embedded.start(directory, _settings=FAST) as server, psycopg.connect(server.url):
        pass


def test_a_server_somebody_started_by_hand_on_the_data_is_not_disturbed(
    directory: Path, cluster: Cluster
) -> None:
    control = [str(cluster.binaries.bin / "pg_ctl"), "-s", "-w", "-D", str(cluster.place.data)]
    quiet = ["-l", "/dev/null", "-o", f"-c listen_addresses= -k {cluster.place.data}"]
    as_server(directory, *control, *quiet, "start")
    try:
        with pytest.raises(EmbeddedFailed, match="was not started by pgqueue: stop it with"):
            embedded.start(directory, _settings=FAST)
        as_server(directory, *control, "status")
    finally:
        as_server(directory, *control, "stop")
    embedded.start(directory, _settings=FAST).close()


def test_a_start_that_takes_too_long_names_the_one_who_has_the_turn(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgqueue.embedded.server.TURN_SECONDS", 0.05)
    with (
        locks.exclusive(directory / "start.lock", 1),
        pytest.raises(EmbeddedFailed, match="another process has been starting or stopping"),
    ):
        embedded.start(directory, _settings=FAST)


def test_a_long_log_is_put_aside(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgqueue.embedded.cluster.LOG_BYTES", 100)
    (directory / "server.log").write_bytes(b"x" * 101)
    with embedded.start(directory, _settings=FAST):
        assert (directory / "server.log.1").stat().st_size == 101
        assert b"x" * 101 not in (directory / "server.log").read_bytes()
