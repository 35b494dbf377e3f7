"""The tables of docs/benchmarks.md, put between its markers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.medians import Medians, label, order
from benchmarks.results import Result

OURS = ("pgqueue", "default")
REFERENCE = "bare-psycopg"
BARE = (REFERENCE, "bare-asyncpg")
NOTHING = "-"

_MARKED = re.compile(r"(<!-- (table|machine|plot): ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, machines: list[dict[str, Any]], results: list[Result]) -> str:
    """The page with what stands between its markers made anew."""
    medians = Medians(results)

    def made(found: re.Match[str]) -> str:
        if found[2] == "machine":
            return found[1] + _machine(machines) + found[4]
        if found[2] == "plot":
            shown = f"![{found[3]}](benchmarks/{found[3]}.svg)\n" if results else ""
            return found[1] + shown + found[4]
        return found[1] + TABLES[found[3]](medians) + found[4]

    return _MARKED.sub(made, page)


# -- cells ---------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three digits that count, and no more than that."""
    if value is None:
        return NOTHING
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2g}"


def ratio(value: float | None, of: float | None) -> str:
    return f"{value / of:.2f}" if value is not None and of else NOTHING


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    if not rows:
        return "Not measured.\n"
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _machine(machines: list[dict[str, Any]]) -> str:
    if not machines:
        return ""
    last = machines[-1]
    settings = ", ".join(f"`{name} = {value}`" for name, value in sorted(last["settings"].items()))
    text = (
        f"{last['cpu']}, {last['cores']} cores, {last['memory_gib']:g} GiB, {last['system']}; "
        f"Python {last['python']}; {last['store']} on the same machine ({settings}). "
        f"Measured on {last['at'][:10]}."
    )
    return text + "\n"


# -- tables --------------------------------------------------------------------


def _summary(medians: Medians) -> str:
    """For the README: each library once, in its faster setting."""
    best: dict[str, tuple[float, tuple[str, str]]] = {}
    for who in medians.peers("drain"):
        rate = medians.value("drain", *who, concurrency=10, workers=1)
        is_ours_or_real = who == OURS or who[0] not in (OURS[0], *BARE)
        if rate is not None and is_ours_or_real:
            best[who[0]] = max(best.get(who[0], (0.0, who)), (rate, who))
    rows = []
    for rate, who in sorted(best.values(), reverse=True):
        clean = medians.value("snapshot", *who, dead=0, held=False)
        held = medians.value("snapshot", *who, dead=100_000, held=True)
        bulk = _middle(_unpadded(medians, "enqueue-bulk", who, chunk=1000))
        # Not each setting was measured at everything.
        alike = [who, *(one for one in medians.peers("latency") if one[0] == who[0])]
        latencies = (medians.value("latency", *one, rate=20) for one in alike)
        p50 = next((value for value in latencies if value is not None), None)
        rows.append([label(*who), number(rate), ratio(held, clean), number(bulk), number(p50)])
    head = ["", "drained, jobs/s", "with a held snapshot", "enqueued in bulk, jobs/s"]
    return table([*head, "enqueue to start, p50 ms"], rows)


def _drain(medians: Medians) -> str:
    columns = [(1, 1), (10, 1), (100, 1), (10, 2)]
    reference = [
        medians.value("drain", REFERENCE, "default", concurrency=c, workers=w) for c, w in columns
    ]
    rows = []
    for who in medians.peers("drain"):
        values = [medians.value("drain", *who, concurrency=c, workers=w) for c, w in columns]
        shares = [ratio(values[1], reference[1]), ratio(values[2], reference[2])]
        rows.append([label(*who), *map(number, values), *shares])
    head = ["jobs/s", "concurrency 1", "10", "100", "2 workers of 10", "bare = 1, at 10", "at 100"]
    return table(head, rows)


def _enqueue(medians: Medians) -> str:
    rows = []
    found = {*medians.peers("enqueue-one"), *medians.peers("enqueue-bulk")}
    # cli is a way to run the worker: its jobs are enqueued as those of the default.
    for who in sorted((who for who in found if not who[1].startswith("cli")), key=order):
        one = _unpadded(medians, "enqueue-one", who)
        bulk = _unpadded(medians, "enqueue-bulk", who, chunk=1000)
        whole = _unpadded(medians, "enqueue-bulk", who, chunk=0)
        cells = [_middle(one), _middle(bulk), _middle(whole)]
        rows.append([label(*who), *map(number, cells), number(_middle_wal(bulk or one))])
    head = ["jobs/s", "one by one", "1,000 a call", "all in one call", "WAL bytes a job"]
    return table(head, rows)


def _unpadded(medians: Medians, workload: str, who: tuple[str, str], **given: Any) -> list[Result]:
    return [run for run in medians.runs(workload, *who, **given) if "payload" not in run.given]


def _middle(runs: list[Result]) -> float | None:
    return statistics.median(run.value for run in runs) if runs else None


def _middle_wal(runs: list[Result]) -> float | None:
    values = [run.measures["wal_per_job"] for run in runs if run.measures.get("wal_per_job")]
    return statistics.median(values) if values else None


def _latency(medians: Medians) -> str:
    rows = []
    for who in medians.peers("latency"):
        for rate in medians.conditions("latency", "rate"):
            runs = medians.runs("latency", *who, rate=rate)
            if not runs:
                continue
            p50 = statistics.median(run.value for run in runs)
            beside = [
                medians.measure(name, "latency", *who, rate=rate) for name in ("p95", "p99", "max")
            ]
            rows.append([label(*who), f"{rate:,}", *map(number, [p50, *beside])])
    return table(["", "jobs/s", "p50 ms", "p95", "p99", "longest"], rows)


def _waiting(medians: Medians) -> str:
    rows = [
        [label(*who), number(medians.value("waiting", *who))] for who in medians.peers("waiting")
    ]
    return table(["", "seconds (ideal: 2.0)"], rows)


def _cost(medians: Medians) -> str:
    names = (
        "worker_cpu_ms_per_job",
        "store_cpu_ms_per_job",
        "cores_used",
        "wal_per_job",
        "worker_mib",
    )
    rows = []
    for who in medians.peers("drain"):
        cells = [medians.measure(name, "drain", *who, concurrency=10, workers=1) for name in names]
        rows.append([label(*who), *map(number, cells)])
    head = ["", "worker CPU s / 1,000 jobs", "server CPU s / 1,000 jobs"]
    return table([*head, "cores in use", "WAL bytes a job", "worker MiB"], rows)


def _snapshot(medians: Medians) -> str:
    rows = []
    for who in medians.peers("snapshot"):
        clean = medians.value("snapshot", *who, dead=0, held=False)
        for dead in medians.conditions("snapshot", "dead"):
            free, held = (
                medians.value("snapshot", *who, dead=dead, held=held) for held in (False, True)
            )
            if free is None and held is None:
                continue
            claims = [
                medians.measure("claim_p99_ms", "snapshot", *who, dead=dead, held=held)
                for held in (False, True)
            ]
            cells = [number(free), number(held), ratio(held, clean), *map(number, claims)]
            rows.append([label(*who), f"{dead:,}", *cells])
    head = ["", "jobs before", "free: jobs/s", "held: jobs/s", "held / clean"]
    return table([*head, "free: claim p99 ms", "held: claim p99 ms"], rows)


def _against(workload: str, condition: str, head: str) -> Callable[[Medians], str]:
    """A table of one drain per value of a condition, against the first value."""

    def made(medians: Medians) -> str:
        rows = []
        for who in medians.peers(workload):
            values = medians.conditions(workload, condition)
            base = medians.value(workload, *who, **{condition: values[0]})
            for value in values:
                rate = medians.value(workload, *who, **{condition: value})
                if rate is not None:
                    rows.append([label(*who), f"{value:,}", number(rate), ratio(rate, base)])
        return table(["", head, "jobs/s", "against the first"], rows)

    return made


def _payload(medians: Medians) -> str:
    rows = []
    for who in medians.peers("payload"):
        for size in medians.conditions("payload", "payload"):
            rate = medians.value("payload", *who, payload=size)
            one = medians.value("enqueue-one", *who, payload=size)
            bulk = medians.value("enqueue-bulk", *who, payload=size)
            measured = [
                medians.measure(name, "payload", *who, payload=size)
                for name in ("wal_per_job", "worker_mib")
            ]
            cells = map(number, [one, bulk, rate, *measured])
            rows.append([label(*who), f"{size:,}", *cells])
    head = ["", "bytes", "one by one", "bulk", "drain", "WAL bytes a job (drain)", "worker MiB"]
    return table(head, rows)


def _idle(medians: Medians) -> str:
    rows = []
    for who in medians.peers("idle"):
        cells = [medians.value("idle", *who)]
        cells += [medians.measure(m, "idle", *who) for m in ("transactions_per_s", "worker_mib")]
        rows.append([label(*who), *map(number, cells)])
    return table(["", "% of a core", "transactions/s", "MiB"], rows)


def _limit(medians: Medians) -> str:
    rows = []
    for who in medians.peers("limit"):
        for clients in medians.conditions("limit", "clients"):
            rate = medians.value("limit", *who, clients=clients)
            if rate is not None:
                rows.append([who[1], str(clients), number(rate)])
    return table(["pgbench", "clients", "jobs/s"], rows)


def _versions(medians: Medians) -> str:
    return table(["", "version", "keeps its jobs in"], medians.versions())


TABLES: Mapping[str, Callable[[Medians], str]] = {
    "summary": _summary,
    "drain": _drain,
    "enqueue": _enqueue,
    "latency": _latency,
    "waiting": _waiting,
    "cost": _cost,
    "snapshot": _snapshot,
    "backlog": _against("backlog", "queued", "queued"),
    "history": _against("history", "finished", "finished"),
    "lanes": _against("lanes", "queues", "queues"),
    "strangers": _against("strangers", "unknown", "jobs of an unknown task"),
    "payload": _payload,
    "idle": _idle,
    "limit": _limit,
    "versions": _versions,
}
