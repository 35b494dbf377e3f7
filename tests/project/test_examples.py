"""The examples run and say what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from project.places import ROOT

SAYS = {
    "batches": ["length: 3", "no length: exception: is empty", "length: 5"],
    "enqueue_in_transaction": ["order 2: out of stock", "orders [(1,)], shipped [(1,)]"],
    "limits": [
        "customer 7: created",
        "customer 7: paid",
        "customer 7: shipped",
        "acme: never more than 2: True",
        "bolt: never more than 2: True",
        "exceeded: []",
    ],
    "retries": [
        "flaky: completed after 3 tries",
        "hopeless: failed after 1 tries",
    ],
    "steps": ["reserved for order 7", "why: waits", "result: from shelf 7, 12 paid"],
    "windows": [
        "first tick: Ticked(windows=3, jobs=3)",
        "second tick: Ticked(windows=0, jobs=0)",
    ],
    "workflow": ["the workflow is failed", "run again: 3 nodes", "report: 14 letters"],
}


def test_every_example_is_run() -> None:
    assert {file.stem for file in (ROOT / "examples").glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_what_it_promises(name: str, empty_database: str, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py"],
        env={**os.environ, "PGQUEUE_DATABASE_URL": empty_database},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    said = [line for line in answer.stderr.splitlines() if not line.startswith("counting")]
    assert [line for line in said if line in SAYS[name]] == SAYS[name], answer.stderr
