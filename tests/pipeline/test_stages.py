"""The stages on a database: what a window takes, what it leaves, and what happens only once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from pipeline_rig import END, HOURS, START, Rig, recorded, rss

from pgqueue.errors import ConfigError, Fail, LeaseLost, Snooze
from pgqueue.pipeline import clustering, reading
from pgqueue.pipeline.events import ItemsEmbedded, RunFinished, StageCommitted, StageStarted
from pgqueue.pipeline.run_window import Asked, run_window
from pgqueue.pipeline.samples import SAMPLE_FEEDS, write_samples

QUIET = "Nothing is said about anything else in this report of a calm day."


def story(word: str, hours: float = 1, *, after: datetime = START) -> tuple[str, str, datetime]:
    title = f"{word} {word}ville opens its new {word} works to visitors"
    return title, f"The {word} works of {word}ville are open. {QUIET}", after + hours * HOURS


def add_samples(rig: Rig) -> None:
    paths = write_samples(rig.folder, window_start=START, window_end=END)
    for feed, path in zip(SAMPLE_FEEDS, paths, strict=True):
        rig.source(path.as_uri(), feed.name)


def items_by_title(rig: Rig) -> dict[str, dict[str, Any]]:
    rows = rig.rows("select title, late, window_id, belongs_at from content.items")
    return {row["title"].partition(" ")[0]: row for row in rows}


def test_the_sample_feeds_become_a_digest_of_stories_that_several_papers_told(rig: Rig) -> None:
    add_samples(rig)
    result = rig.run()
    assert result["counts"]["ingest"]["items"] == 52
    assert result["counts"]["embed"] == {"items": 52, "embedded": 52, "new": 52}
    assert result["counts"]["cluster"]["stories"] == 17
    body = rig.digest()
    assert len(body["stories"]) == 10
    assert all(story["publishers"] > 1 and story["points"] for story in body["stories"])


def test_a_second_run_of_a_window_ingests_nothing_new_and_leaves_one_digest(rig: Rig) -> None:
    add_samples(rig)
    first = rig.run()
    digests = rig.rows("select * from content.digests")
    items = rig.rows("select * from content.items order by id")
    with recorded() as events:
        assert rig.run() == first
    assert events == []
    assert rig.rows("select * from content.digests") == digests
    assert rig.rows("select * from content.items order by id") == items


def test_every_row_says_whose_it_is(rig: Rig) -> None:
    add_samples(rig)
    rig.run()
    for table in ("items", "embeddings", "stories", "story_items", "windows", "digests"):
        owners = rig.rows(f"select distinct org_id, user_id from content.{table}")  # noqa: S608 - ours
        assert owners == [{"org_id": 1, "user_id": 1}], table


def test_the_counts_of_each_stage_are_kept_and_told_at_the_end(rig: Rig) -> None:
    add_samples(rig)
    with recorded() as events:
        rig.run()
    (row,) = rig.rows("select stage, counts, milliseconds, finished_at, error from content.windows")
    (finished,) = [event for event in events if isinstance(event, RunFinished)]
    committed = [event for event in events if isinstance(event, StageCommitted)]
    assert row["stage"] == "digest"
    assert row["finished_at"] is not None
    assert row["error"] is None
    assert [event.stage for event in committed] == ["ingest", "embed", "cluster", "digest"]
    assert {event.stage: event.counts for event in committed} == row["counts"] == finished.counts
    assert {event.stage: event.milliseconds for event in committed} == row["milliseconds"]


def test_a_window_takes_what_was_published_in_it_and_leaves_the_rest(rig: Rig) -> None:
    rig.feed(
        "a.rss",
        rss(
            [
                story("Before", -1),
                story("First", 0),
                story("Last", 7.99),
                story("Next", 0, after=END),
            ]
        ),
    )
    rig.run()
    taken = {name for name, row in items_by_title(rig).items() if row["window_id"] is not None}
    assert taken == {"First", "Last"}


def test_the_next_window_takes_what_was_seen_early(rig: Rig) -> None:
    rig.feed("a.rss", rss([story("Next", 0, after=END)]))
    rig.run()
    rig.run(END, END + HOURS)
    assert [told["title"] for told in rig.digest(END + HOURS)["stories"]] == [story("Next")[0]]
    assert items_by_title(rig)["Next"]["late"] is False


def test_a_late_item_goes_into_the_next_window_and_the_old_digest_stays(rig: Rig) -> None:
    rig.feed("a.rss", rss([story("Early")]))
    rig.run()
    before = rig.digest()
    rig.feed("b.rss", rss([story("Late", 2)]))
    second = rig.run(END, END + HOURS)
    assert second["counts"]["ingest"]["late"] == 1
    assert items_by_title(rig)["Late"]["late"] is True
    assert [told["title"] for told in rig.digest(END + HOURS)["stories"]] == [story("Late", 2)[0]]
    assert rig.digest() == before


def test_an_item_is_told_once_and_a_story_again_only_when_something_is_new(rig: Rig) -> None:
    rig.feed("a.rss", rss([story("Wind")]))
    rig.run()
    title = "Windville opens its Wind works: 400 visitors queue"
    text = "Some 400 visitors came to see the Wind works of Windville on the first day."
    rig.feed("b.rss", rss([(title, text, END + 0.1 * HOURS)], "https://b.example"))
    rig.run(END, END + HOURS)
    (told,) = rig.digest(END + HOURS)["stories"]
    assert len(told["items"]) == 2
    assert len(told["new_items"]) == 1
    assert told["new_since"] is not None


@pytest.mark.parametrize("broken", [b"<html><body>no feed</body></html>", b"", b"\x00\xff"])
def test_a_bad_source_is_recorded_and_the_others_go_on(rig: Rig, broken: bytes) -> None:
    bad = rig.feed("bad.rss", broken)
    rig.feed("good.rss", rss([story("Good")]))
    rig.source((rig.folder / "missing.rss").as_uri(), "missing")
    result = rig.run()
    assert result["counts"]["ingest"]["failed"] == 2
    assert len(rig.digest()["stories"]) == 1
    (row,) = rig.rows(
        "select failures, health, last_error, next_poll_at from content.sources where id = %s",
        [bad],
    )
    assert (row["failures"], row["health"]) == (1, "failing")
    assert row["last_error"]


def test_a_source_that_postgres_will_not_store_fails_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.feed("bad.rss", rss([story("Bad")]))
    rig.feed("good.rss", rss([story("Good")]))
    real = reading.items_of

    def with_a_nul(*args: Any, **options: Any) -> Any:
        return [
            replace(item, title=item.title.replace("Bad", "B\0d"))
            for item in real(*args, **options)
        ]

    monkeypatch.setattr(reading, "items_of", with_a_nul)
    assert rig.run()["counts"]["ingest"]["items"] == 1
    errors = rig.rows("select name, last_error from content.sources order by name")
    assert errors[0]["last_error"].startswith("cannot be stored")
    assert errors[1]["last_error"] is None


def test_five_failures_in_a_row_make_a_source_unhealthy_and_one_answer_heals_it(rig: Rig) -> None:
    source = rig.feed("a.rss", "no feed")
    health = []
    for hour in range(5):
        rig.run(START + hour * HOURS, START + (hour + 1) * HOURS)
        health.append(rig.one("select health from content.sources where id = %s", [source]))
    rig.feed("a.rss", rss([story("Healed", 5.5)]))
    rig.run(START + 5 * HOURS, START + 6 * HOURS)
    (row,) = rig.rows("select health, failures, last_error from content.sources")
    assert health == ["failing"] * 4 + ["unhealthy"]
    assert row == {"health": "healthy", "failures": 0, "last_error": None}


def test_an_empty_window_is_stored_with_its_reason(rig: Rig) -> None:
    source = rig.feed("a.rss", rss([]))
    rig.run()
    assert (rig.digest()["stories"], rig.digest()["reason"]) == ([], "no items")
    (rig.folder / "a.rss").unlink()
    rig.run(END, END + HOURS)
    assert rig.digest(END + HOURS)["reason"] == "sources failing"
    assert rig.one("select failures from content.sources where id = %s", [source]) == 1


def test_a_copy_of_another_papers_report_is_no_item_of_its_own_but_counts(rig: Rig) -> None:
    rig.feed("a.rss", rss([story("Solar")]))
    rig.feed("b.rss", rss([story("Solar", 1.5)], "https://copy.example"))
    assert rig.run()["counts"]["cluster"]["copies"] == 1
    (told,) = rig.digest()["stories"]
    assert told["publishers"] == 2
    (source,) = told["sources"]
    assert len(source["copies"]) == 1
    assert rig.one("select count(*) from content.items where duplicate_of is not null") == 1


def test_vectors_are_kept_batch_by_batch(rig: Rig) -> None:
    rig.feed("a.rss", rss([story(f"Word{number}") for number in range(300)]))

    def batch_seen(events: list[Any]) -> bool:
        return any(isinstance(event, ItemsEmbedded) for event in events)

    asked = Asked(user_id=1, topic_id=rig.topic_id, window_start=START, window_end=END)
    with recorded() as events, pytest.raises(Snooze):
        run_window(asked, rig.pgq.settings, transactions(rig), lambda: batch_seen(events))
    assert rig.one("select count(*) from content.embeddings") == 256
    with recorded() as events:
        rig.run()
    assert [event.items for event in events if isinstance(event, ItemsEmbedded)] == [44]
    started = [event.stage for event in events if isinstance(event, StageStarted)]
    assert started == ["embed", "cluster", "digest"]


def transactions(rig: Rig, lose: str = "") -> Any:
    """Plain transactions; the one that moves the window to stage `lose` fails at its commit."""

    @contextmanager
    def transaction() -> Iterator[Any]:
        with rig.pgq.connection() as connection, connection.transaction():
            yield connection
            rows = connection.execute("select stage from content.windows").fetchall()
            if (lose,) in rows:
                raise LeaseLost(1, 1)

    return transaction


@pytest.mark.parametrize("stage", ["ingest", "embed", "cluster", "digest"])
def test_a_stage_whose_lease_was_lost_leaves_nothing(rig: Rig, stage: str) -> None:
    add_samples(rig)
    asked = Asked(user_id=1, topic_id=rig.topic_id, window_start=START, window_end=END)
    with recorded() as events, pytest.raises(LeaseLost):
        run_window(asked, rig.pgq.settings, transactions(rig, lose=stage), lambda: False)
    assert stage not in [event.stage for event in events if isinstance(event, StageCommitted)]
    left = {
        "ingest": "select count(*) from content.items where window_id is not null",
        "embed": "select count(*) from content.windows where stage = 'embed'",
        "cluster": "select count(*) from content.stories",
        "digest": "select count(*) from content.digests",
    }
    assert rig.one(left[stage]) == 0
    assert rig.one("select error from content.windows") is None
    rig.run()
    assert rig.one("select count(*) from content.digests") == 1
    assert len(rig.digest()["stories"]) == 10


def test_two_runs_of_one_window_at_once_make_one_digest(rig: Rig) -> None:
    add_samples(rig)
    results = []
    threads = [threading.Thread(target=lambda: results.append(rig.run())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert results[0]["counts"] == results[1]["counts"] == results[2]["counts"]
    assert rig.one("select count(*) from content.digests") == 1
    assert rig.one("select count(*) from content.story_items") == 52
    assert rig.one("select count(*) from content.stories") == 17


def test_windows_of_one_topic_run_at_once_tell_each_item_in_its_own(rig: Rig) -> None:
    spans = [(START + n * HOURS, START + (n + 1) * HOURS) for n in range(4)]
    rig.feed("a.rss", rss([story(f"Word{n}", n + 0.5) for n in range(4)]))
    threads = [threading.Thread(target=rig.run, args=span) for span in spans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (_, end) in enumerate(spans):
        assert [told["title"] for told in rig.digest(end)["stories"]] == [story(f"Word{number}")[0]]
    assert rig.one("select count(*) from content.items where late") == 0


def test_the_same_feeds_give_the_same_digest(rig: Rig) -> None:
    def told() -> list[Any]:
        return [
            (one["title"], one["score"], [point["text"] for point in one["points"]])
            for one in rig.digest()["stories"]
        ]

    add_samples(rig)
    rig.run()
    first = told()
    rig.rows("truncate content.windows, content.items, content.stories cascade")
    rig.rows("update content.sources set etag = null, last_modified = null")
    rig.run()
    assert told() == first


def test_since_last_run_begins_where_the_last_digest_ended(rig: Rig) -> None:
    rig.feed("a.rss", rss([story("Old", 1), story("New", 7)]))
    middle = START + 4 * HOURS
    rig.run(START, middle)
    rig.run(START - HOURS, END, mode="since-last-run")
    assert (
        rig.one("select items_since from content.windows where mode = 'since-last-run'") == middle
    )
    assert [one["title"] for one in rig.digest()["stories"]] == [story("New")[0]]


def test_a_backfill_takes_no_late_items(rig: Rig) -> None:
    rig.run()
    rig.feed("a.rss", rss([story("Late")]))
    rig.run(END, END + HOURS, mode="backfill")
    assert items_by_title(rig)["Late"]["window_id"] is None


def test_a_topic_of_somebody_else_is_not_there(rig: Rig) -> None:
    asked = Asked(user_id=2, topic_id=rig.topic_id, window_start=START, window_end=END)
    with pytest.raises(Fail, match="user 2 has no topic"):
        run_window(asked, rig.pgq.settings, transactions(rig), lambda: False)
    assert rig.one("select count(*) from content.windows") == 0


def test_a_window_that_ends_before_it_begins_is_refused(rig: Rig) -> None:
    with pytest.raises(ConfigError, match="before it has begun"):
        rig.run(END, START)
    with pytest.raises(ConfigError, match="mode 'daily' is not known"):
        rig.run(mode="daily")
    with pytest.raises(ConfigError, match="time zone"):
        rig.run(START.replace(tzinfo=None), END)


def test_a_failure_is_noted_on_the_window_and_gone_when_it_is_done(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.feed("a.rss", rss([story("Any")]))
    with monkeypatch.context() as patch:
        patch.setattr("pgqueue.pipeline.clustering.cluster", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rig.run()
    assert "ZeroDivisionError" in rig.one("select error from content.windows")
    rig.run()
    assert rig.one("select error from content.windows") is None


def test_what_was_planned_on_old_stories_is_planned_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.feed("a.rss", rss([story("Any")]))
    real, calls = clustering.cluster, []

    def disturbed(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            rig.rows("update content.topics set revision = revision + 1")
        return real(*args, **options)

    monkeypatch.setattr(clustering, "cluster", disturbed)
    rig.run()
    assert len(calls) == 2
    assert rig.one("select count(*) from content.stories") == 1
