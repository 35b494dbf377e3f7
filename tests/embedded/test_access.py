"""The server's owner alone reaches it, and nobody's folders are opened for it."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest

from pgqueue import embedded
from pgqueue.embedded import account
from pgqueue.embedded.account import account_for
from pgqueue.embedded.places import SOCKET_PATH_BYTES, Place, default_directory, prepare_directory
from pgqueue.embedded.wheel import find_binaries
from pgqueue.errors import EmbeddedFailed

from .conftest import FAST, as_root, runs


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def modes_above(*paths: Path) -> dict[Path, int]:
    return {above: mode(above) for path in paths for above in path.parents if above.exists()}


def show(url: str, setting: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("select current_setting(%s)", [setting]).fetchone()
    assert row
    return str(row[0])


def someone_else(directory: Path) -> pwd.struct_passwd:
    server = account_for(directory / "data")
    return next(user for user in pwd.getpwall() if user.pw_uid not in (0, server.uid))


def psql_as(
    user: pwd.struct_passwd, server: embedded.EmbeddedServer
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(server.bin_dir / "psql"), server.url, "-c", "select 1"],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_a_utf_8_database_in_utc_with_durable_commits(directory: Path) -> None:
    with embedded.start(directory) as server:
        assert show(server.url, "server_encoding") == "UTF8"
        query = "select datctype from pg_database where datname = 'pgqueue'"
        assert server.run("psql", "-Atc", query).stdout == "C.UTF-8\n"
        assert show(server.url, "TimeZone") == "UTC"
        assert show(server.url, "fsync") == "on"
        assert show(server.url, "synchronous_commit") == "on"


def test_it_listens_on_no_network(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        assert show(server.url, "listen_addresses") == ""
        with psycopg.connect(server.url) as connection:
            row = connection.execute("select count(*) from pg_hba_file_rules").fetchone()
            assert row == (1,)
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        fds = (Path("/proc") / str(server.pid) / "fd").iterdir()
        inodes = [str(fd.readlink())[8:-1] for fd in fds if "socket:" in str(fd.readlink())]
        assert inodes
        assert not [inode for inode in inodes if f" {inode} " in listening]


def test_data_socket_and_log_are_closed_to_others(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST):
        assert mode(directory / "data") == mode(directory / "run") == 0o700
        assert mode(directory / "run" / ".s.PGSQL.5432") == 0o700
        private = ["server.log", "start.lock", "members.lock", "server.lock"]
        assert {mode(directory / name) for name in private} == {0o600}


@as_root
def test_another_user_does_not_reach_the_socket(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        answer = psql_as(someone_else(directory), server)
    assert answer.returncode != 0
    assert "Permission denied" in answer.stderr


@as_root
def test_another_user_who_reaches_the_socket_is_refused_by_the_server(directory: Path) -> None:
    run = directory / "run"
    with embedded.start(directory, _settings=FAST) as server:
        run.chmod(0o755)
        (run / ".s.PGSQL.5432").chmod(0o777)
        try:
            answer = psql_as(someone_else(directory), server)
            as_server_user = psql_as(pwd.getpwnam(account_for(directory / "data").name), server)
        finally:
            run.chmod(0o700)
    assert "Peer authentication failed" in answer.stderr
    assert "Peer authentication failed" in as_server_user.stderr


@as_root
def test_the_directory_of_another_user_is_refused(folder: Path) -> None:
    theirs = folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(EmbeddedFailed, match=r"belongs to user id .* folder of your own"):
        embedded.start(theirs)
    assert not any(theirs.iterdir())


@as_root
def test_root_gets_a_server_that_runs_as_somebody_else(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST) as server:
        assert (Path("/proc") / str(server.pid)).stat().st_uid != 0
        assert (directory / "pg_hba.conf").stat().st_uid == 0
        environment = (Path("/proc") / str(server.pid) / "environ").read_bytes()
        assert b"HOME=" not in environment


@as_root
def test_without_a_postgres_user_nobody_runs_it_and_goes_on_running_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as bare_system:
        bare_system.setattr(account, "SERVER_USERS", ("no-such-user", "nobody"))
        embedded.start(folder / "new", _settings=FAST).close()
    monkeypatch.setattr(account, "SERVER_USERS", ("daemon",))
    with embedded.start(folder / "new") as server, psycopg.connect(server.url):
        assert (Path("/proc") / str(server.pid)).owner() == "nobody"


@as_root
def test_root_without_any_user_to_run_it_is_told_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "SERVER_USERS", ("no-such-user",))
    with pytest.raises(EmbeddedFailed, match="none of the users no-such-user: add one"):
        embedded.start(folder / "new")


@as_root
def test_a_folder_the_servers_user_cannot_reach_is_refused_and_left_alone(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(0o700)
    with pytest.raises(EmbeddedFailed, match=f"{closed} is closed to others. Leave PGQUEUE_EMB"):
        embedded.start(closed / "deep" / "new")
    assert mode(closed) == 0o700
    assert not any(closed.iterdir())


def test_no_folder_outside_ours_changes_its_permissions(folder: Path) -> None:
    outside = folder / "outside"
    outside.mkdir()
    outside.chmod(0o775)
    directory = outside / "between" / "new"
    watched = [outside / "between", default_directory(), find_binaries().bin / "postgres"]
    before = modes_above(*watched)
    embedded.start(directory, _settings=FAST).close()
    assert modes_above(*watched) | before == modes_above(*watched)
    assert mode(outside) == 0o775


def test_an_umask_that_closes_everything_does_not_close_it_to_its_server(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        embedded.start(folder / "between" / "new", _settings=FAST).close()
    finally:
        os.umask(before)


def test_a_folder_that_others_can_write_is_refused(folder: Path) -> None:
    shared = folder / "shared"
    shared.mkdir()
    (shared / "start.lock").touch()
    shared.chmod(0o777)
    with pytest.raises(EmbeddedFailed, match="can be written by others: run `chmod go-w"):
        embedded.start(shared)


def test_an_empty_folder_given_to_us_is_closed_as_initdb_does(folder: Path) -> None:
    given = folder / "given"
    given.mkdir()
    given.chmod(0o777)
    prepare_directory(Place(given), account_for(given))
    assert mode(given) & 0o066 == 0


def test_a_folder_that_holds_other_things_is_refused_and_left_alone(folder: Path) -> None:
    (folder / "thesis.txt").touch()
    with pytest.raises(EmbeddedFailed, match="holds other things"):
        embedded.start(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(EmbeddedFailed, match="is not a folder"):
        embedded.start(folder / "file")


@pytest.mark.parametrize("name", ["d" * 120, 'a, b\'c "d" %e $f é'])
def test_a_deep_or_odd_path_gets_a_short_socket_that_is_removed_at_the_end(
    folder: Path, made_directory: Path, name: str
) -> None:
    directory = folder / name
    subprocess.run(["cp", "-a", made_directory, directory], check=True)
    sockets = Place(directory).sockets
    assert sockets.parent != directory
    assert len(os.fsencode(Place(directory).socket)) <= SOCKET_PATH_BYTES
    with embedded.start(directory, _settings=FAST) as server, psycopg.connect(server.url):
        assert mode(sockets) == 0o700
    assert not sockets.exists()


def test_a_socket_folder_somebody_else_put_there_is_refused(directory: Path) -> None:
    run = directory / "run"
    run.rename(directory / "run.kept")
    try:
        run.symlink_to(directory / "run.kept")
        with pytest.raises(EmbeddedFailed, match=r"alone .0700., so no socket"):
            embedded.start(directory, _settings=FAST)
        run.unlink()
        run.mkdir()
        run.chmod(0o755)
        with pytest.raises(EmbeddedFailed, match=r"alone .0700., so no socket"):
            embedded.start(directory, _settings=FAST)
        run.rmdir()
    finally:
        (directory / "run.kept").rename(run)
    assert not runs(directory)


def test_pg_variables_of_the_environment_do_not_mislead_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"PGPORT": "1", "PGUSER": "x", "PGDATABASE": "x", "PGHOST": "/x", "PGDATA": "/x"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with embedded.start(directory, _settings=FAST) as server:
        assert show(server.url, "port") == "5432"
        assert server.run("psql", "-Atc", "select current_database()").stdout == "pgqueue\n"


def test_a_client_program_that_fails_says_why(directory: Path) -> None:
    with (
        embedded.start(directory, _settings=FAST) as server,
        pytest.raises(EmbeddedFailed, match=r'psql failed .*relation "nothing" does not exist'),
    ):
        server.run("psql", "-c", "select * from nothing")


def test_a_user_without_a_name_is_told_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nameless)
    with pytest.raises(EmbeddedFailed, match=r"has no name on this system.*PGQUEUE_DATABASE_URL"):
        embedded.start(folder / "new")


def test_the_default_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_directory() == Path("/somewhere/pgqueue/postgres")
    monkeypatch.setenv("XDG_DATA_HOME", "relative, so not valid")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_directory() == Path("/home/someone/.local/share/pgqueue/postgres")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory() == Path("/var/lib/pgqueue/postgres")
