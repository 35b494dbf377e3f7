"""The one result format: a JSON line a measurement, and what is computed from several of them."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement.

    `value` is in `unit`; `given` holds the conditions (jobs, concurrency, …), `measures` what was
    measured beside the value. `busy` is how many cores others used just before it began.
    """

    peer: str
    version: str
    setting: str
    workload: str
    value: float
    unit: str
    given: Mapping[str, Any]
    measures: Mapping[str, Any] = field(default_factory=dict)
    store: str = ""
    busy: float = 0.0
    at: str = ""


class Results:
    """Appends to a file of JSON lines, and shows each line as it comes."""

    def __init__(self, path: Path, show: Any = print) -> None:
        self._path = path
        self._show = show
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, result: Result) -> None:
        row = asdict(result) | {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self._append({"kind": "result", **row})
        told = " ".join(f"{name}={value}" for name, value in result.given.items())
        beside = " ".join(f"{name}={value}" for name, value in result.measures.items())
        self._show(
            f"{result.workload:12} {result.peer}:{result.setting} {told}: "
            f"{result.value:.5g} {result.unit}  {beside}"
        )

    def add_machine(self, store: str, settings: Mapping[str, str]) -> None:
        """What it ran on, once per run of the harness."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = {"kind": "machine", "at": at, **machine(), "store": store, "settings": settings}
        self._append(row)

    def _append(self, row: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def machine() -> dict[str, Any]:
    models = _values("/proc/cpuinfo", "model name")
    memory = _values("/proc/meminfo", "MemTotal")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory[0].split()[0]) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def _values(path: str, key: str) -> list[str]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]


def read(paths: Iterable[Path]) -> tuple[list[dict[str, Any]], list[Result]]:
    """The machines and the results of some files, in their order."""
    machines, results = [], []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.pop("kind") == "machine":
                machines.append(row)
            else:
                results.append(Result(**row))
    return machines, results


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of `ordered` (ascending) does not exceed."""
    if not ordered:
        raise ValueError("no values")
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[min(len(ordered), int(rank)) - 1]
