"""Processes of one owner share one server, and the last one turns it off."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
import pytest

from pgqueue import embedded

from .conftest import FAST, MEMBER, Member, runs


def test_eight_processes_that_start_at_once_on_nothing_share_one_server(folder: Path) -> None:
    directory = folder / "new"
    with ExitStack() as stack:
        members = [stack.enter_context(Member(directory)) for _ in range(8)]
        for member in members:
            member.begin_joining()
        assert len({member.joined() for member in members}) == 1
        for member in members[:-1]:
            member.leave()
            assert runs(directory)
        members[-1].leave()
        assert not runs(directory)


def test_after_kill_9_the_next_process_joins_the_same_server_and_stops_it(directory: Path) -> None:
    with Member(directory) as victim:
        pid = victim.join()
        victim.process.kill()
        victim.process.wait()
    assert runs(directory)
    with Member(directory) as heir:
        assert heir.join() == pid
        heir.leave()
    assert not runs(directory)


def test_kill_9_of_one_process_leaves_the_server_to_the_others(directory: Path) -> None:
    with Member(directory) as victim, Member(directory) as other:
        assert victim.join() == other.join()
        victim.process.kill()
        victim.process.wait()
        assert runs(directory)
        other.leave()
    assert not runs(directory)


def test_threads_of_one_process_share_one_server(directory: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        servers = list(threads.map(lambda _: embedded.start(directory, _settings=FAST), range(8)))
        assert len({server.pid for server in servers}) == 1
        for server in servers:
            assert runs(directory)
            server.close()
    assert not runs(directory)


def test_closing_twice_leaves_once(directory: Path) -> None:
    first, second = embedded.start(directory, _settings=FAST), embedded.start(directory)
    first.close()
    first.close()
    with psycopg.connect(second.url):
        pass
    second.close()
    assert not runs(directory)


def test_a_handle_leaves_at_the_end_of_its_with_block(directory: Path) -> None:
    with embedded.start(directory, _settings=FAST):
        assert runs(directory)
    assert not runs(directory)


def test_a_process_started_by_ours_does_not_keep_the_server_running(directory: Path) -> None:
    server = embedded.start(directory, _settings=FAST)
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, close_fds=False)
    server.close()
    assert not runs(directory)
    child.communicate()


def _live_as_child(directory: Path, orders: Connection) -> None:
    orders.send(runs(directory))
    orders.recv()


@pytest.fixture
def child_process(directory: Path) -> tuple[multiprocessing.Process, Connection]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    return context.Process(target=_live_as_child, args=(directory, theirs)), ours


def test_a_forked_child_that_ends_does_not_stop_its_parents_server(
    directory: Path, child_process: tuple[multiprocessing.Process, Connection]
) -> None:
    child, orders = child_process
    with embedded.start(directory, _settings=FAST) as server:
        child.start()
        orders.send("end")
        child.join()
        assert child.exitcode == 0
        with psycopg.connect(server.url):
            pass
    assert not runs(directory)


def test_a_forked_child_keeps_the_server_after_its_parent_left_and_stops_it_at_its_own_end(
    directory: Path, child_process: tuple[multiprocessing.Process, Connection]
) -> None:
    child, orders = child_process
    with embedded.start(directory, _settings=FAST):
        child.start()
        assert orders.recv()
    assert runs(directory)
    orders.send("end")
    child.join()
    assert child.exitcode == 0
    assert not runs(directory)


def test_a_child_of_a_bare_fork_counts_as_a_member_of_its_own(directory: Path) -> None:
    script = MEMBER.replace("sys.stdin.readline()\nserver", "server") + (
        "import os\nchild = os.fork()\nif not child:\n    sys.exit(0)\n"
        "os.waitpid(child, 0)\nprint(server.run('psql', '-Atc', 'select 1').stdout)\n"
    )
    command = [sys.executable, "-c", script, str(directory)]
    done = subprocess.run(command, input="on\n", capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "1"
    assert not runs(directory)


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(directory: Path) -> None:
    with Member(directory) as member:
        pid = member.join()
        assert os.getsid(pid) != os.getsid(member.process.pid)
        assert os.getpgid(pid) != os.getpgid(member.process.pid)


def test_ctrl_c_while_starting_leaves_nothing_behind(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("pgqueue.embedded.cluster.Cluster._ensure_database", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        embedded.start(directory, _settings=FAST)
    assert not runs(directory)


def test_stopping_what_never_ran_does_nothing(folder: Path) -> None:
    embedded.stop(folder / "never")
    assert not (folder / "never").exists()
