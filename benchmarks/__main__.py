"""The command: `python -m benchmarks run | plan | limits | clean`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import TimeoutExpired

from benchmarks import limits
from benchmarks.bench import Bench, Config, PeerFailed
from benchmarks.catalog import PEERS
from benchmarks.results import Results
from benchmarks.stores import Postgres
from benchmarks.workloads import WORKLOADS, Options

PLANS = Path(__file__).parent / "plans"
DEFAULT_HOME = Path("build/benchmarks")
DEFAULT_REDIS = "redis://127.0.0.1:6390/0"


def main() -> None:
    arguments = _parser().parse_args()
    # Workers that outlive the harness would eat the jobs of its next run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _config(arguments) as config:
        if arguments.command == "limits":
            limits.measure(config, arguments.runs)
        elif arguments.command == "clean":
            _clean(config)
        elif arguments.command == "plan":
            _run_plan(config, PLANS / f"{arguments.name}.txt", arguments.minutes * 60)
        else:
            _run(config, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="run workloads for peers, in turns"))
    plan = commands.add_parser("plan", help="carry out a file of plans/, line by line")
    plan.add_argument("name", choices=sorted(path.stem for path in PLANS.glob("*.txt")))
    plan.add_argument("--minutes", type=float, default=600, help="begin no line after that")
    limit = commands.add_parser("limits", help="what the server itself allows")
    limit.add_argument("--runs", type=int, default=3)
    commands.add_parser("clean", help="drop the databases that the benchmark has made")
    for name in ("run", "plan", "limits", "clean"):
        commands.choices[name].add_argument("--out", type=Path, help="file of JSON lines to add to")
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("peers", help="PEER or PEER:SETTING, separated by commas")
    run.add_argument("workloads", nargs="+", choices=sorted(WORKLOADS))
    run.add_argument("--runs", type=int, default=3)
    for name in ("jobs", "workers", "rate", "chunk", "backlog", "lanes", "strangers"):
        run.add_argument(f"--{name}", type=int, default=getattr(_DEFAULTS, name))
    run.add_argument("--concurrency", type=_numbers, default=(_DEFAULTS.concurrency,))
    for name in ("dead", "payload"):
        run.add_argument(f"--{name}", type=_numbers, default=getattr(_DEFAULTS, name))


_DEFAULTS = Options()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _run(config: Config, arguments: argparse.Namespace) -> None:
    """Peers alternate within each workload, so that a ratio is of the same minutes."""
    chosen = [word.partition(":")[::2] for word in arguments.peers.split(",")]
    benches = [Bench(config, PEERS[name], setting or "default") for name, setting in chosen]
    for workload in arguments.workloads:
        for concurrency in arguments.concurrency:
            options = _options(arguments, concurrency)
            for _ in range(arguments.runs):
                for bench in benches:
                    _attempt(bench, workload, options)
    for bench in benches:
        bench.store.close()


def _options(arguments: argparse.Namespace, concurrency: int) -> Options:
    given = {name: getattr(arguments, name) for name in Options.__slots__}
    return Options(**{**given, "concurrency": concurrency})


def _attempt(bench: Bench, workload: str, options: Options) -> None:
    try:
        WORKLOADS[workload](bench, options)
    except (PeerFailed, TimeoutExpired, OSError) as error:
        _say(f"!! {bench.peer.name}:{bench.setting} {workload}: {error}")


def _run_plan(config: Config, path: Path, seconds: float) -> None:
    """Each line is what `run` or `limits` takes; begins nothing new when the time is over."""
    began = time.monotonic()
    lines = [line.partition("#")[0].split() for line in path.read_text().splitlines()]
    for words in filter(None, lines):
        passed = time.monotonic() - began
        if passed > seconds:
            _say(f"-- not begun, the time is over: {shlex.join(words)}")
            continue
        _say(f"-- {passed:.0f} s: {shlex.join(words)}")
        arguments = _parser().parse_args(words)
        if arguments.command == "limits":
            limits.measure(config, arguments.runs)
        else:
            _run(config, arguments)


def _clean(config: Config) -> None:
    store = Postgres(config.postgres, "bench_limits", "select 0")
    for name in store.names("bench_"):
        store.drop(name)
    store.close()


@contextmanager
def _config(arguments: argparse.Namespace) -> Iterator[Config]:
    home = Path(os.environ.get("BENCH_HOME", DEFAULT_HOME)).absolute()
    home.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.out or home / "results.jsonl", _say)
    with _server(home) as (server, log):
        store = Postgres(server, "postgres", "select 0")
        results.add_machine(store.version(), store.settings())
        store.close()
        yield Config(
            home=home,
            postgres=server,
            redis=os.environ.get("BENCH_REDIS", DEFAULT_REDIS),
            results=results,
            server_log=log,
        )


@contextmanager
def _server(home: Path) -> Iterator[tuple[str, str]]:
    """$BENCH_PG, else a private server of the benchmark's own; and the path of its log."""
    if server := os.environ.get("BENCH_PG"):
        yield server, os.environ.get("BENCH_PG_LOG", "log")
        return
    from pgqueue import embedded  # noqa: PLC0415 - only for those who have no server

    with embedded.start(home / "postgres") as private:
        yield private.url, ""


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
