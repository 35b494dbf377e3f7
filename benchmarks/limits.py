"""What the server itself allows: round trips, commits, COPY and batch claims, by pgbench."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from benchmarks import processes
from benchmarks.bench import Config, PeerFailed
from benchmarks.results import Result
from benchmarks.stores import Postgres

SECONDS = 3
ROWS = 100_000
BATCH = 500
TABLE = """
drop table if exists j;
create table j (
  id bigint generated always as identity primary key,
  status text not null default 'todo',
  payload jsonb not null,
  at timestamptz not null default now()
);
create index j_todo on j (id) where status = 'todo';
"""
INSERT = """insert into j (payload) values ('{"n": 1}');"""
PICKED = f"""with c as (
  select id from j where status = 'todo' order by id limit {BATCH} for update skip locked
)"""
CLAIM_AND_DELETE = f"{PICKED} delete from j using c where j.id = c.id;"
# Two commits a batch, as a queue that delivers at least once needs them.
CLAIM_THEN_DELETE = f"""
{PICKED}, u as (update j set status = 'doing' from c where j.id = c.id returning j.id)
select quote_literal(coalesce(array_agg(id)::text, '{{}}')) as ids from u \\gset
delete from j where id = any(:ids::bigint[]);
"""


def measure(config: Config, runs: int) -> None:
    """Tell the limits of the server, each `runs` times."""
    program = shutil.which("pgbench")
    if program is None:
        raise PeerFailed("pgbench is not installed; Debian: apt install postgresql-contrib")
    store = Postgres(config.postgres, "bench_limits", "select 0")
    limits = Limits(config, store, program)
    try:
        store.create()
        for _ in range(runs):
            limits.all()
    finally:
        store.close()


class Limits:
    def __init__(self, config: Config, store: Postgres, program: str) -> None:
        self._config = config
        self._store = store
        self._program = program

    def all(self) -> None:
        for clients in (1, 8):
            self._timed("insert, one commit each", INSERT, clients)
        self._timed("round trip (select 1)", "select 1;", 1)
        self._copy()
        for clients in (1, 4):
            self._claim("claim and delete, one commit", CLAIM_AND_DELETE, "prepared", clients)
            self._claim("claim, then delete, two commits", CLAIM_THEN_DELETE, "simple", clients)

    def _copy(self) -> None:
        self._run_sql(TABLE)
        block = "".join(f'{{"n": {n}}}\n' for n in range(ROWS)).encode()
        busy = processes.busy_cores()
        with psycopg.connect(self._store.dsn) as connection, connection.cursor() as cursor:
            began = time.perf_counter()
            with cursor.copy("copy j (payload) from stdin") as copy:
                copy.write(block)
            connection.commit()
            seconds = time.perf_counter() - began
        self._tell("COPY of 100,000", 1, ROWS / seconds, busy)

    def _timed(self, name: str, script: str, clients: int) -> None:
        self._run_sql(TABLE)
        busy = processes.busy_cores()
        rate = self._pgbench(script, "prepared", clients, "-T", str(SECONDS))
        self._tell(name, clients, rate, busy)

    def _claim(self, name: str, script: str, mode: str, clients: int) -> None:
        self._run_sql(TABLE)
        self._run_sql(
            "insert into j (payload) select jsonb_build_object('n', g)"
            f" from generate_series(1, {ROWS}) as g"
        )
        self._store.analyze()
        busy = processes.busy_cores()
        turns = ROWS // BATCH // clients
        rate = self._pgbench(script, mode, clients, "-t", str(turns)) * BATCH
        self._tell(f"{name}, batches of {BATCH}", clients, rate, busy)

    def _pgbench(self, script: str, mode: str, clients: int, *length: str) -> float:
        with tempfile.TemporaryDirectory(dir=self._config.home) as folder:
            path = Path(folder) / "script.sql"
            path.write_text(script)
            jobs = str(min(2, clients))
            words = ["-n", "-M", mode, "-c", str(clients), "-j", jobs, *length, "-f", str(path)]
            output = subprocess.check_output(
                [self._program, *words, self._store.dsn], text=True, stderr=subprocess.PIPE
            )
        found = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
        if found is None:
            raise PeerFailed(f"pgbench said nothing about transactions: {output[-500:]}")
        return float(found[1])

    def _run_sql(self, text: str) -> None:
        with psycopg.connect(self._store.dsn, autocommit=True) as connection:
            connection.execute(text.encode())

    def _tell(self, name: str, clients: int, rate: float, busy: float) -> None:
        version = self._store.version()
        self._config.results.add(
            Result(
                peer="pgbench",
                version=version.removeprefix("Postgres "),
                setting=name,
                workload="limit",
                value=round(rate, 1),
                unit="jobs/s",
                given={"clients": clients},
                store=version,
                busy=round(busy, 2),
            )
        )
