"""The container's files say what the code needs; no container engine takes part here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from pgqueue.settings import Settings, normalised_url
from pgqueue.worker.service import CANCEL_GRACE
from project.commands import commands
from project.places import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")


def test_no_password_is_committed() -> None:
    given = [
        value
        for service in COMPOSE["services"].values()
        for name, value in service["environment"].items()
        if "PASSWORD" in name
    ]
    assert given
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in given)


def test_the_address_of_the_database_is_one_we_understand() -> None:
    address = COMPOSE["services"]["pgqueue"]["environment"]["PGQUEUE_DATABASE_URL"]
    assert normalised_url(address) == address
    server = COMPOSE["services"]["postgres"]["environment"]
    assert f"user={server['POSTGRES_USER']}" in address
    assert f"dbname={server['POSTGRES_DB']}" in address
    assert "host=postgres" in address


def test_jobs_get_their_shutdown_timeout_before_the_engine_kills_them() -> None:
    grace = float(COMPOSE["services"]["pgqueue"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().shutdown_timeout + CANCEL_GRACE


def test_the_worker_starts_once_the_database_is_healthy() -> None:
    waits_for = COMPOSE["services"]["pgqueue"]["depends_on"]
    assert waits_for == {"postgres": {"condition": "service_healthy"}}
    assert COMPOSE["services"]["postgres"]["healthcheck"]["test"]


def test_it_runs_as_an_ordinary_user_with_a_home() -> None:
    instructions = [line for line in CONTAINERFILE.splitlines() if not line.startswith(" ")]
    last_user = [line for line in instructions if line.startswith("USER ")][-1]
    assert last_user == "USER 10001"
    assert instructions.index(last_user) < instructions.index('CMD ["up"]')
    assert "useradd --uid 10001 --create-home" in CONTAINERFILE


@pytest.mark.parametrize("command", ["pgq up", "pgq worker check"])
def test_the_commands_of_the_container_exist(command: str) -> None:
    assert command in {path for path, _, _ in commands()}
    *_, last = command.split()
    assert f'"{last}"]' in CONTAINERFILE


def test_every_file_that_the_build_copies_is_let_through() -> None:
    build, _ = CONTAINERFILE.split("\nFROM ", 2)[1:]
    copied = {
        name
        for line in re.findall(r"^COPY (.*)$", build, re.MULTILINE)
        for name in line.split()[:-1]
    }
    ignore = (ROOT / ".containerignore").read_text(encoding="utf-8")
    let_through = {line[1:] for line in ignore.splitlines() if line.startswith("!")}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
