"""Real feeds, all in one topic: each is read or fails with its reason, and the window is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_rig import END, HOURS, Rig

DATA = Path(__file__).parents[3] / "shared" / "data" / "feeds"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="real feeds (../shared/data/feeds) are not on this machine"
)
# Old feeds: what was published long ago belongs to where it was first seen, and that is now.
LATER = END + 3 * HOURS


def test_every_real_feed_is_read_or_fails_with_a_reason(rig: Rig) -> None:
    paths = sorted(path for path in DATA.rglob("*") if path.is_file())
    rig.folder = DATA
    for path in paths:
        rig.source(path.as_uri(), path.stem)
    counts = rig.run(END, LATER)["counts"]
    assert counts["ingest"]["polled"] == len(paths)
    sources = rig.rows("select health, failures, last_error from content.sources")
    assert {source["health"] for source in sources} == {"healthy", "failing"}
    for source in sources:
        assert (source["health"] == "healthy") == (source["last_error"] is None)
    items = rig.one("select count(*) from content.items")
    assert rig.one("select count(*) from content.story_items") == items
    assert len(rig.digest(LATER)["stories"]) == 10

    again = rig.run(LATER, LATER + HOURS)["counts"]["ingest"]
    assert again["new"] == 0
    assert rig.one("select count(*) from content.items") == items
