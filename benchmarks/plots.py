"""The plots of the page as SVG. Needs matplotlib, which the benchmark's own environment has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# In an environment of its own, which mypy does not see.
import matplotlib as mpl  # type: ignore[import-not-found]
from matplotlib import pyplot

from benchmarks.medians import Medians, label
from benchmarks.tables import number

OURS, REFERENCE, OTHERS = "#1f6feb", "#9aa4b2", "#c98a2b"
WIDTH = 8.0
ROW = 0.32

mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        # The same data give the same file, so that a difference in git is one in figures.
        "svg.hashsalt": "pgqueue",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)

Bar = tuple[str, str, float]


def draw(medians: Medians, folder: Path) -> None:
    """Write one SVG for each picture there are results for."""
    drains = _bars(medians, "drain", concurrency=10, workers=1)
    _barh(folder / "drain.svg", drains, "no-op jobs/s, one worker, concurrency 10")
    bulk = _bars(medians, "enqueue-bulk", chunk=1000)
    _barh(folder / "bulk.svg", bulk, "jobs/s, enqueued 1,000 a call")
    one = _bars(medians, "enqueue-one")
    _barh(folder / "one.svg", one, "jobs/s, enqueued one by one")
    latency = _bars(medians, "latency", rate=20)
    _barh(folder / "latency.svg", latency, "ms from enqueue to start, median at 20 jobs/s")
    _snapshot(folder / "snapshot.svg", medians)


def _bars(medians: Medians, workload: str, **given: Any) -> list[Bar]:
    bars = []
    for peer, setting in medians.peers(workload):
        value = medians.value(workload, peer, setting, **given)
        if value is not None and not (workload != "drain" and setting.startswith("cli")):
            bars.append((peer, label(peer, setting), value))
    return sorted(bars, key=lambda bar: bar[2])


def _colour(peer: str) -> str:
    return OURS if peer == "pgqueue" else REFERENCE if peer.startswith("bare") else OTHERS


def _barh(path: Path, bars: Sequence[Bar], title: str) -> None:
    if not bars:
        return
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.9 + ROW * len(bars)))
    drawn = axes.barh(
        [name for _, name, _ in bars],
        [value for *_, value in bars],
        color=[_colour(peer) for peer, *_ in bars],
    )
    axes.bar_label(drawn, labels=[number(value) for *_, value in bars], padding=3)
    axes.margins(x=0.12, y=0.02)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title, loc="left")
    _save(figure, path)


def _snapshot(path: Path, medians: Medians) -> None:
    dead = medians.conditions("snapshot", "dead")
    if not dead:
        return
    figure, axes = pyplot.subplots(figsize=(WIDTH, 3.2))
    for peer, setting in medians.peers("snapshot"):
        clean = medians.value("snapshot", peer, setting, dead=0, held=False)
        points = [
            (count, value / clean)
            for count in dead
            if clean and (value := medians.value("snapshot", peer, setting, dead=count, held=True))
        ]
        if len(points) > 1:
            colour = {"color": OURS, "linewidth": 2.5} if peer == "pgqueue" else {}
            axes.plot(*zip(*points, strict=True), marker="o", label=label(peer, setting), **colour)
    axes.axhline(1.0, color=REFERENCE, linewidth=0.8)
    axes.set_ylim(0, 1.4)
    axes.set_xlabel("jobs done since the snapshot was taken")
    axes.set_title("drain rate with a snapshot held, against a clean database", loc="left")
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
