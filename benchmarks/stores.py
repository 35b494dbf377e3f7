"""The two kinds of server a queue keeps its jobs in, and what is measured of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from benchmarks import processes


class Store(Protocol):
    """Where jobs are kept; opened anew for every run."""

    def version(self) -> str: ...

    def cpu(self) -> float | None:
        """CPU seconds the server has used so far; None where it is not on this machine."""

    def written(self) -> int | None:
        """Bytes of write-ahead log so far, for the whole server."""

    def pending(self) -> int: ...


class Postgres:
    """One database on a Postgres server that the benchmark may make and drop databases on."""

    def __init__(self, server: str, name: str, pending: str) -> None:
        self.name = name
        self.dsn = _with_database(server, name)
        self._pending = pending
        self._admin = psycopg.connect(_with_database(server, "postgres"), autocommit=True)
        pid = self._scalar("select pg_backend_pid()")
        self._postmaster = processes.parent_of(pid)
        if processes.name_of(self._postmaster) not in ("postgres", "postmaster"):
            self._postmaster = 0  # the server runs elsewhere
        self._probe: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        self.forget()
        self._admin.close()

    def forget(self) -> None:
        """Close the probe's connection; the database can be dropped or copied then."""
        if self._probe is not None:
            self._probe.close()
        self._probe = None

    def drop(self, name: str | None = None) -> None:
        self.forget()
        self._command("drop database if exists {} with (force)", name or self.name)

    def create(self, template: str = "template1") -> None:
        self.drop()
        self._command("create database {} template {}", self.name, template)

    def exists(self, name: str) -> bool:
        query = "select exists (select from pg_database where datname = %s)"
        return bool(self._scalar(query, name))

    def names(self, prefix: str) -> list[str]:
        """The databases whose name begins so."""
        query = "select datname from pg_database where starts_with(datname, %s)"
        return [name for (name,) in self._admin.execute(query, [prefix]).fetchall()]

    def keep_as(self, template: str) -> None:
        """Copy the database as it is now, to begin later runs with it."""
        self.forget()
        self.drop(template)
        self._command("create database {} template {}", template, self.name)

    def checkpoint(self) -> None:
        self._admin.execute("checkpoint")

    def analyze(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("vacuum analyze")

    def log_statements(self) -> None:
        """Let the server log every statement of this database with its duration."""
        for setting in ("log_min_duration_statement = 0", "log_parameter_max_length = 0"):
            self._command("alter database {} set " + setting, self.name)

    def version(self) -> str:
        return "Postgres " + str(self._scalar("show server_version")).split()[0]

    def settings(self) -> dict[str, str]:
        query = "select name, setting from pg_settings where name = any(%s)"
        return dict(self._admin.execute(query, [list(TOLD_SETTINGS)]).fetchall())

    def cpu(self) -> float | None:
        return processes.cpu_of_tree(self._postmaster) if self._postmaster else None

    def written(self) -> int | None:
        return int(self._scalar("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def pending(self) -> int:
        return int(self.ask(self._pending))

    def ask(self, query: str) -> Any:
        """The first value of a query in this database."""
        if self._probe is None:
            self._probe = psycopg.connect(self.dsn, autocommit=True)
        row = self._probe.execute(query).fetchone()
        return row[0] if row else None

    def transactions(self) -> int:
        """Transactions in this database so far, without those of the benchmark itself."""
        query = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
        return int(self._scalar(query, self.name))

    def log_offset(self, path: str) -> int:
        return int(self._scalar("select size from pg_stat_file(%s)", path))

    def log_from(self, path: str, offset: int) -> str:
        """What the server logged after `offset`; `path` is relative to its data directory."""
        length = self.log_offset(path) - offset
        query = "select convert_from(pg_read_binary_file(%s, %s, %s), 'UTF8')"
        return str(self._scalar(query, path, offset, length))

    @contextmanager
    def held_snapshot(self) -> Iterator[None]:
        """Another session's transaction, whose snapshot keeps dead rows from being removed."""
        with psycopg.connect(self.dsn) as holder:
            holder.execute("set transaction isolation level repeatable read")
            holder.execute("select count(*) from pg_class")
            yield
            holder.rollback()

    def _scalar(self, query: str, *values: Any) -> Any:
        row = self._admin.execute(query, values or None).fetchone()
        return row[0] if row else None

    def _command(self, text: str, *names: str) -> None:
        command = sql.SQL(text).format(*map(sql.Identifier, names))
        self._admin.execute(command)


TOLD_SETTINGS = (
    "autovacuum",
    "checkpoint_timeout",
    "fsync",
    "full_page_writes",
    "max_wal_size",
    "shared_buffers",
    "synchronous_commit",
)


def _with_database(server: str, name: str) -> str:
    parts = urlsplit(server)
    return urlunsplit(parts._replace(path="/" + name))


class Redis:
    """One database of a Redis server, emptied for every run; speaks just enough of its protocol."""

    def __init__(self, url: str, pending: tuple[str, ...]) -> None:
        parts = urlsplit(url)
        self._pending = pending
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 6379))
        self._replies = self._socket.makefile("rb")
        self.command("select", parts.path.lstrip("/") or "0")

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    def command(self, *words: str) -> Any:
        encoded = [word.encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        self._socket.sendall(b"".join(parts))
        kind, rest = (line := self._replies.readline())[:1], line[1:].strip()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._replies.read(int(rest) + 2)[:-2].decode()
        if kind == b"-":
            raise RuntimeError(f"Redis: {rest.decode()}")
        return rest.decode()

    def clear(self) -> None:
        self.command("flushdb")

    def version(self) -> str:
        return "Redis " + self._info("server")["redis_version"]

    def cpu(self) -> float | None:
        info = self._info("cpu")
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])

    def written(self) -> int | None:
        return None

    def pending(self) -> int:
        return sum(self.command(*words.split()) for words in self._pending)

    def _info(self, section: str) -> dict[str, str]:
        lines = self.command("info", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)
