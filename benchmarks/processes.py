"""What /proc tells about processes: CPU seconds, memory, family. Linux only, no dependency."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The second field is the name in parentheses and may hold anything.
    return text.rpartition(")")[2].split()


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    """The parent's pid; 0 when there is no such process here."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def tree(pid: int) -> Iterator[int]:
    """This process and all that came from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            children.setdefault(parent_of(int(folder.name)), []).append(int(folder.name))
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        yield current
        waiting += children.get(current, [])


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process, its living children, and those that it has waited for."""
    # Fields 14 to 17: user and system time, its own and that of children it waited for.
    return sum(sum(map(int, _stat(one)[11:15])) for one in tree(pid)) / _TICKS


def memory_of_tree(pid: int) -> float:
    """Resident memory in MiB; pages that processes share count for each."""
    return sum(_resident(one) for one in tree(pid)) * _PAGE / _MIB


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0


class Load:
    """How much of the machine is used from now on, by whomever."""

    def __init__(self) -> None:
        self._used, self._began = _used(), time.monotonic()

    def cores(self) -> float:
        """Cores in use on average until now."""
        return (_used() - self._used) / (time.monotonic() - self._began)


def busy_cores(seconds: float = 0.2) -> float:
    """How many cores anybody uses right now; asked while the benchmark itself does nothing."""
    load = Load()
    time.sleep(seconds)
    return load.cores()


def _used() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS
