"""What several runs say together."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from benchmarks.results import Result

BUSY = 0.5
"""Runs that began while others used more than so many cores are left out, if two quiet ones of
the same kind are there."""


class Medians:
    """Runs grouped by (workload, peer, setting, conditions)."""

    def __init__(self, results: Iterable[Result]) -> None:
        groups: dict[tuple[str, str, str, frozenset[tuple[str, Any]]], list[Result]]
        groups = defaultdict(list)
        for result in results:
            given = {name: value for name, value in result.given.items() if name != "jobs"}
            key = (result.workload, result.peer, result.setting, frozenset(given.items()))
            groups[key].append(result)
        self._groups = {key: _quiet(runs) for key, runs in groups.items()}

    def runs(self, workload: str, peer: str, setting: str, **given: Any) -> list[Result]:
        """The runs with at least these conditions."""
        wanted = set(given.items())
        return [
            run
            for (name, *who, conditions), runs in self._groups.items()
            if name == workload and who == [peer, setting] and wanted <= conditions
            for run in runs
        ]

    def value(self, workload: str, peer: str, setting: str, **given: Any) -> float | None:
        runs = self.runs(workload, peer, setting, **given)
        return statistics.median(run.value for run in runs) if runs else None

    def measure(
        self, measure: str, workload: str, peer: str, setting: str, **given: Any
    ) -> float | None:
        runs = self.runs(workload, peer, setting, **given)
        values = [run.measures[measure] for run in runs if run.measures.get(measure) is not None]
        return statistics.median(values) if values else None

    def peers(self, workload: str) -> list[tuple[str, str]]:
        """(peer, setting) pairs that did this work, the reference and ours first."""
        found = {(peer, setting) for name, peer, setting, _ in self._groups if name == workload}
        return sorted(found, key=order)

    def conditions(self, workload: str, name: str) -> list[Any]:
        """The values that one condition took, ascending."""
        found = [dict(key[3]).get(name) for key in self._groups if key[0] == workload]
        return sorted({value for value in found if value is not None})

    def versions(self) -> list[tuple[str, str, str]]:
        """(peer, version, store), each once."""
        found = {
            (run.peer, run.version, run.store.split()[0])
            for runs in self._groups.values()
            for run in runs
        }
        return sorted(found, key=lambda row: (rank(row[0]), row))


def _quiet(runs: list[Result]) -> list[Result]:
    quiet = [run for run in runs if run.busy <= BUSY]
    return quiet if len(quiet) >= 2 else runs


def rank(peer: str) -> int:
    return 0 if peer == "pgqueue" else 1 if peer.startswith("bare") else 2


def order(who: tuple[str, str]) -> tuple[int, str, bool, str]:
    """Where a (peer, setting) stands in a table: its default first."""
    peer, setting = who
    return rank(peer), peer, setting != "default", setting


def label(peer: str, setting: str) -> str:
    return peer if setting == "default" else f"{peer} ({setting})"
