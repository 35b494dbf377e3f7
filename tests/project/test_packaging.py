"""What is in the checkout is in the wheel, and the pages agree with the package."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from project.places import ROOT, tracked_files

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = {"pgqueue": "pgqueue", "cli": "pgqueue.cli", "migrations": "pgqueue.migrations"}


def test_the_list_of_packages_is_the_list_of_folders() -> None:
    found = {
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for folder, name in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(SETUPTOOLS["packages"]) == found


def test_every_file_of_a_package_travels_in_the_wheel() -> None:
    left_behind = [
        file.relative_to(ROOT).as_posix()
        for file in tracked_files()
        if file.relative_to(ROOT).parts[0] in FOLDERS and not _travels(file)
    ]
    assert left_behind == []


def _travels(file: Path) -> bool:
    package = next(folder for folder in file.parents if (folder / "__init__.py").exists())
    inside = file.relative_to(package).as_posix()
    if inside.endswith(".py"):
        return "/" not in inside
    return any(_matches(inside, glob) for glob in SETUPTOOLS["package-data"]["*"])


def _matches(inside: str, glob: str) -> bool:
    # setuptools' `*` does not reach into folders.
    return inside.count("/") == glob.count("/") and fnmatch(inside, glob)


def test_all_is_the_sum_of_the_extras() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    listed = re.fullmatch(r"pgqueue\[(.*)\]", everything)
    assert listed is not None
    assert set(listed[1].split(",")) == set(extras) - {"all"}


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert versions[0] == PROJECT["project"]["version"]


def test_the_lock_file_holds_every_dependency_with_its_hashes() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    asked = [
        *PROJECT["project"]["dependencies"],
        *(line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines),
        *PROJECT["dependency-groups"]["dev"],
    ]
    names = {re.split(r"[\[<>=~! ;]", line)[0].lower().replace("_", "-") for line in asked}
    assert names - {"pgqueue"} <= locked, "make lock"
    assert not re.search(r"^--?(index-url|extra-index-url|find-links)", lock, re.MULTILINE)
