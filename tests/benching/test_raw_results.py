"""What is computed from raw results."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import tables
from benchmarks.claims import claim_times
from benchmarks.medians import Medians
from benchmarks.results import Result, percentile


def result(value: float, *, peer: str = "pgqueue", busy: float = 0.0, jobs: int = 10) -> Result:
    return Result(
        peer=peer,
        version="1",
        setting="default",
        workload="drain",
        value=value,
        unit="jobs/s",
        given={"jobs": jobs, "concurrency": 10, "workers": 1},
        busy=busy,
        store="Postgres 15",
    )


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(
    values: list[float], share: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    covered = sum(value <= found for value in ordered)
    below = sum(value < found for value in ordered)
    assert covered >= share * len(ordered) > below - 1e-6


def test_runs_on_a_busy_machine_are_left_out_when_two_quiet_ones_are_there() -> None:
    runs = [result(100.0), result(110.0), result(10.0, busy=1.4)]
    assert Medians(runs).value("drain", "pgqueue", "default") == 105.0


def test_busy_runs_count_where_there_is_nothing_better() -> None:
    runs = [result(100.0), result(10.0, busy=1.4), result(20.0, busy=1.4)]
    assert Medians(runs).value("drain", "pgqueue", "default") == 20.0


def test_runs_of_different_length_are_of_one_kind() -> None:
    runs = [result(100.0, jobs=10), result(110.0, jobs=20)]
    assert Medians(runs).value("drain", "pgqueue", "default", concurrency=10) == 105.0


def test_ours_comes_first_and_the_reference_second() -> None:
    runs = [result(1.0, peer=peer) for peer in ("awa", "bare-psycopg", "pgqueue")]
    assert [peer for peer, _ in Medians(runs).peers("drain")] == ["pgqueue", "bare-psycopg", "awa"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.012, "0.012"), (2.345, "2.35"), (345.6, "346"), (34567.8, "34,600")],
)
def test_a_figure_has_three_digits_that_count(value: float | None, text: str) -> None:
    assert tables.number(value) == text


def test_a_claim_is_found_in_the_log_of_the_server_with_its_planning() -> None:
    claim = "with x as (select 1 for update skip locked) update j set status = 1"
    log = (
        f"2026-01-01 00:00:00.000 UTC [7] LOG:  duration: 0.250 ms  bind a: {claim}\n"
        f"2026-01-01 00:00:00.001 UTC [8] LOG:  duration: 9.000 ms  execute b: select 1\n"
        f"2026-01-01 00:00:00.002 UTC [7] LOG:  duration: 1.500 ms  execute a: {claim}\n"
    )
    assert list(claim_times(log)) == [1.75]
