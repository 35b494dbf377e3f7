"""Promises of clustering: one story per item, the same plan for the same input."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.pipeline.cluster import (
    Item,
    Known,
    Merge,
    Plan,
    Story,
    cluster,
    status_of,
)
from pgqueue.pipeline.embed import choose, text_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HASH = choose("hash-2048")

BANK = [
    "Central bank raises interest rates by half a point",
    "Interest rates raised by half a point, central bank says",
    "Half a point more: central bank lifts interest rates",
]
FROG = [
    "Lost frog found again in cloud forest after a century",
    "Biologists find lost frog in cloud forest",
]
WORDS = ["bank", "rates", "frog", "forest", "tunnel", "river", "mayor", "film", "award", "raises"]


def item(number: int, title: str, *, hours: float = 0, **more: str) -> Item:
    text = more.pop("text", "")
    vector = HASH.embed([text_of(title, text)])[0]
    return Item(number, NOON + timedelta(hours=hours), title, text, vector, **more)


def known_of(entry: Item, story_id: int, duplicate_of: int | None = None) -> Known:
    return Known(
        entry.id, story_id, entry.published_at, entry.title, entry.text,
        entry.canonical_url, entry.content_hash, duplicate_of,
    )  # fmt: skip


def story(number: int, entries: Sequence[Item], status: str = "developing") -> Story:
    mean = np.mean([entry.vector for entry in entries], axis=0).astype(np.float32)
    times = [entry.published_at for entry in entries]
    made = Story(number, mean, len(entries), min(times), max(times), title=entries[0].title)
    return replace(made, status=status)  # type: ignore[arg-type] # literals in tests


def plan(
    items: Sequence[Item],
    stories: Sequence[Story] = (),
    known: Sequence[Known] = (),
    end: datetime = NOON + timedelta(hours=6),
) -> Plan:
    return cluster(items, stories, known, join=HASH.join, merge=HASH.merge, window_end=end)


def shape(made: Plan) -> object:
    stories = [
        (s.id, s.count, s.copies, s.first_item_at, s.last_item_at, s.status, s.title)
        for s in made.stories
    ]
    return made.assignments, stories, made.merges, [s.centroid.tobytes() for s in made.stories]


def test_reports_of_the_same_event_are_one_story_and_others_are_not() -> None:
    titles = [*BANK, *FROG]
    made = plan([item(n, title, hours=n) for n, title in enumerate(titles, 1)])
    assert [entry.story_id for entry in made.assignments] == [-1, -1, -1, -4, -4]
    assert [(entry.id, entry.count) for entry in made.stories] == [(-1, 3), (-4, 2)]


def test_an_item_joins_the_story_of_an_earlier_window() -> None:
    old = [item(1, BANK[0]), item(2, BANK[1])]
    made = plan([item(3, BANK[2], hours=5)], [story(70, old)])
    assert made.assignments[0].story_id == 70
    (updated,) = made.stories
    assert (updated.id, updated.count) == (70, 3)
    assert updated.last_item_at == NOON + timedelta(hours=5)
    expected = np.mean([HASH.embed([title])[0] for title in BANK], axis=0)
    assert np.allclose(updated.centroid, expected, atol=1e-6)


def test_a_story_quiet_for_more_than_72_hours_takes_no_more_items() -> None:
    old = story(70, [item(1, BANK[0])])
    at = {hours: plan([item(2, BANK[0] + "!", hours=hours)], [old]) for hours in (72, 72.1)}
    assert at[72].assignments[0].story_id == 70
    assert at[72.1].assignments[0].story_id == -2


def test_a_closed_story_takes_no_more_items() -> None:
    made = plan([item(2, BANK[1])], [story(70, [item(1, BANK[0])], "closed")])
    assert made.assignments[0].story_id == -2


def test_an_item_between_two_stories_makes_them_one_and_the_older_id_survives() -> None:
    left, right = item(1, BANK[0]), item(2, BANK[1])
    stories = [story(9, [right]), story(4, [left])]
    made = plan([item(3, BANK[0] + " today")], stories)
    assert made.merges == (Merge(loser=9, winner=4),)
    assert [(entry.id, entry.count) for entry in made.stories] == [(4, 3)]
    assert made.assignments[0].story_id == 4


def test_the_same_address_or_content_is_a_copy_of_the_earlier_item() -> None:
    made = plan(
        [
            item(5, BANK[0], canonical_url="https://a.example/1", content_hash="x"),
            item(6, "Another headline for the same page", canonical_url="https://a.example/1"),
            item(7, "Yet another headline", hours=1, content_hash="x"),
        ]
    )
    assert [entry.duplicate_of for entry in made.assignments] == [None, 5, 5]
    assert [(s.id, s.count, s.copies) for s in made.stories] == [(-5, 1, 2)]


def test_a_wire_report_with_a_new_headline_is_a_near_copy() -> None:
    text = " ".join(f"word{n}" for n in range(118))
    made = plan([item(1, BANK[0], text=text), item(2, "Rates go up", text=text)])
    assert [entry.duplicate_of for entry in made.assignments] == [None, 1]


def test_a_daily_column_under_one_headline_is_news_every_day() -> None:
    monday = " ".join(f"monday{n}" for n in range(60))
    tuesday = " ".join(f"tuesday{n}" for n in range(60))
    title = "Five things to know this morning"
    made = plan([item(1, title, text=monday), item(2, title, text=tuesday, hours=4)])
    assert [entry.duplicate_of for entry in made.assignments] == [None, None]


def test_a_changed_number_is_no_copy() -> None:
    made = plan([item(1, "Storm kills 5 people in port"), item(2, "Storm kills 7 people in port")])
    assert [entry.duplicate_of for entry in made.assignments] == [None, None]


def test_a_copy_of_an_older_copy_names_the_first_original() -> None:
    first = item(1, BANK[0], canonical_url="https://a.example/1")
    second = item(2, "Something else", canonical_url="https://a.example/2")
    old = [known_of(first, 70), known_of(second, 70, duplicate_of=1)]
    made = plan([item(3, "New", canonical_url="https://a.example/2")], [story(70, [first])], old)
    assert (made.assignments[0].duplicate_of, made.assignments[0].story_id) == (1, 70)
    assert [(s.id, s.count, s.copies) for s in made.stories] == [(70, 1, 1)]


def test_a_copy_of_something_long_closed_does_not_come_up_again() -> None:
    first = item(1, BANK[0], canonical_url="https://a.example/1")
    again = item(2, BANK[0], hours=200, canonical_url="https://a.example/1")
    made = plan([again], [], [known_of(first, 70)], end=NOON + timedelta(hours=204))
    assert (made.assignments[0].story_id, made.stories) == (70, ())


@pytest.mark.parametrize(
    ("hours", "status"),
    [(0, "developing"), (23.9, "developing"), (24, "stable"), (71.9, "stable"), (72, "closed")],
)
def test_a_story_grows_quiet_and_closes_with_time(hours: float, status: str) -> None:
    assert status_of(NOON, NOON + timedelta(hours=hours)) == status


def test_a_window_without_items_only_changes_statuses() -> None:
    made = plan([], [story(70, [item(1, BANK[0])])], end=NOON + timedelta(hours=30))
    assert (made.assignments, made.merges) == ((), ())
    assert [(entry.id, entry.status, entry.count) for entry in made.stories] == [(70, "stable", 1)]


def test_running_again_with_nothing_new_changes_nothing() -> None:
    first = plan([item(n, title) for n, title in enumerate([*BANK, *FROG], 1)])
    stored = [replace(entry, id=-entry.id) for entry in first.stories]
    again = plan([], stored)
    assert (again.assignments, again.stories, again.merges) == ((), (), ())


def test_items_without_a_word_stay_alone() -> None:
    made = plan([item(1, "!!!"), item(2, "???"), item(3, BANK[0])])
    assert [entry.story_id for entry in made.assignments] == [-1, -2, -3]


def test_a_new_story_is_named_by_its_most_central_headline() -> None:
    titles = [f"{title} - The Daily" for title in BANK]
    made = plan([item(n, title, publisher="Daily") for n, title in enumerate(titles, 1)])
    assert [entry.title in BANK for entry in made.stories] == [True]


titles = st.lists(st.sampled_from(WORDS), min_size=0, max_size=6).map(" ".join)
inputs = st.lists(st.tuples(titles, st.integers(0, 90), st.integers(0, 4)), max_size=14)


def made_items(rows: Sequence[tuple[str, int, int]], start: int = 1) -> list[Item]:
    return [
        item(n, title, hours=hours, canonical_url=f"u{url}" if url else "")
        for n, (title, hours, url) in enumerate(rows, start)
    ]


@settings(max_examples=60, deadline=None)
@given(inputs, inputs)
def test_every_item_is_in_exactly_one_story_and_every_count_is_right(
    earlier: list[tuple[str, int, int]], now: list[tuple[str, int, int]]
) -> None:
    old = made_items(earlier)
    first = plan(old)
    stored = [replace(entry, id=-entry.id) for entry in first.stories]
    where = {entry.item_id: entry for entry in first.assignments}
    known = [known_of(e, -where[e.id].story_id, where[e.id].duplicate_of) for e in old]
    new = made_items(now, start=100)
    second = plan(new, stored, known, end=NOON + timedelta(hours=100))
    assert [e.item_id for e in second.assignments] == [
        e.id for e in sorted(new, key=lambda e: (e.published_at, e.id))
    ]
    losers = {merge.loser: merge.winner for merge in second.merges}
    after = {entry.id: entry for entry in stored if entry.id not in losers}
    after |= {entry.id: entry for entry in second.stories}
    homes = [losers.get(known_entry.story_id, known_entry.story_id) for known_entry in known]
    homes += [entry.story_id for entry in second.assignments]
    assert sorted(set(homes)) == sorted(after)
    for number, entry in after.items():
        assert entry.count + entry.copies == homes.count(number)
    assert {entry.id for entry in second.stories}.isdisjoint(losers)


@settings(max_examples=40, deadline=None)
@given(inputs, st.randoms(use_true_random=False))
def test_the_order_in_which_items_are_handed_in_is_irrelevant(
    rows: list[tuple[str, int, int]], chance: random.Random
) -> None:
    items = made_items([(title, 0, url) for title, _, url in rows])
    mixed = list(items)
    chance.shuffle(mixed)
    assert shape(plan(items)) == shape(plan(mixed))
