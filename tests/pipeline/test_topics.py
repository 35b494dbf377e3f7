"""Topics, sources and the schedule that follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_rig import Rig, rss

from pgqueue import PgQueue
from pgqueue.errors import ConfigError, NotMigrated, PgQueueError, TaskUnknown, ZoneInvalid
from pgqueue.pipeline.inbox import get_digest, list_digests
from pgqueue.pipeline.tasks import add_tasks
from pgqueue.pipeline.topics import add_source, add_topic, cron_of, list_sources, list_topics


def test_a_topic_gets_a_schedule_of_three_windows_a_day_in_its_zone(rig: Rig) -> None:
    topic = add_topic(rig.pgq, "Energy", timezone="Europe/Bratislava", keywords=["wind", " sun "])
    (schedule,) = [one for one in rig.pgq.list_schedules() if one["name"] == f"topic:{topic.id}"]
    assert (schedule["cron"], schedule["timezone"]) == ("0 6,14,22 * * *", "Europe/Bratislava")
    assert (schedule["task"], schedule["delay"], schedule["catch_up"]) == ("run-window", 600, "all")
    assert schedule["payload"] == {"user_id": 1, "topic_id": topic.id}
    (listed,) = [one for one in list_topics(rig.pgq) if one["id"] == topic.id]
    assert listed["keywords"] == ["wind", "sun"]
    assert listed["next_run_at"] == topic.next_run_at == schedule["next_run_at"]


def test_adding_a_topic_again_changes_it_and_its_schedule(rig: Rig) -> None:
    first = add_topic(rig.pgq, "Energy")
    again = add_topic(rig.pgq, "  Energy ", times=["07:30", "19:30"], timezone="Asia/Tokyo")
    assert (again.id, first.is_new, again.is_new) == (first.id, True, False)
    (schedule,) = [one for one in rig.pgq.list_schedules() if one["name"] == f"topic:{first.id}"]
    assert (schedule["cron"], schedule["timezone"]) == ("30 7,19 * * *", "Asia/Tokyo")


@pytest.mark.parametrize(
    ("times", "cron"),
    [
        (["06:00", "14:00", "22:00"], "0 6,14,22 * * *"),
        (["22:15", "6:15"], "15 6,22 * * *"),
        (["00:00"], "0 0 * * *"),
    ],
)
def test_daily_times_become_a_cron_expression(times: list[str], cron: str) -> None:
    assert cron_of(times) == cron


@pytest.mark.parametrize("times", [[], [""], ["24:00"], ["6"], ["06:60"], ["06:00", "x"]])
def test_times_that_are_none_are_refused(times: list[str]) -> None:
    with pytest.raises(ConfigError, match="HH:MM"):
        cron_of(times)


def test_times_at_different_minutes_are_refused() -> None:
    with pytest.raises(ConfigError, match="same minute"):
        cron_of(["06:00", "14:30"])


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"name": " "}, ConfigError),
        ({"name": "x" * 201}, ConfigError),
        ({"name": "x", "timezone": "Mars/Base"}, ZoneInvalid),
        ({"name": "x", "times": ["noon"]}, ConfigError),
        ({"name": "x", "embedder": "magic"}, ConfigError),
        ({"name": "x", "user_id": 77}, ConfigError),
    ],
)
def test_a_topic_that_is_not_valid_leaves_nothing(
    rig: Rig, given: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        add_topic(rig.pgq, **given)  # type: ignore[arg-type] # wrong on purpose
    assert len(list_topics(rig.pgq)) == len(rig.pgq.list_schedules()) == 1


def test_an_app_without_the_task_says_so_and_leaves_nothing(rig: Rig, pgq: PgQueue) -> None:
    with pytest.raises(TaskUnknown, match="run-window"):
        add_topic(pgq, "Energy")
    assert [topic["name"] for topic in list_topics(pgq)] == ["Topic"]


def test_a_source_is_added_once_by_topic_name_or_id(rig: Rig) -> None:
    first = add_source(rig.pgq, "https://Example.com/feed?utm_source=x", topic="Topic", name="Ex")
    again = add_source(rig.pgq, "https://example.com:443/feed", topic=str(rig.topic_id))
    assert (first.id, first.is_new, again.is_new) == (again.id, True, False)
    (listed,) = list_sources(rig.pgq, topic="Topic")
    assert (listed["name"], listed["health"], listed["topic"]) == ("Ex", "new", "Topic")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "feed",
        "ftp://example.com/x",
        "javascript:alert(1)",
        "http://",
        "https://a b/\n",
        "x" * 9,
    ],
)
def test_an_address_that_is_none_is_refused(rig: Rig, url: str) -> None:
    with pytest.raises(ConfigError, match="not valid"):
        add_source(rig.pgq, url, topic="Topic")
    assert list_sources(rig.pgq) == []


def test_a_file_is_refused_unless_the_operator_names_its_folder(rig: Rig, tmp_path: Path) -> None:
    url = (tmp_path / "a.rss").as_uri()
    with pytest.raises(ConfigError, match="operator"):
        add_source(rig.pgq, url, topic="Topic")
    with pytest.raises(ConfigError, match="outside"):
        add_source(rig.pgq, url, topic="Topic", files_under=tmp_path / "other")
    with pytest.raises(ConfigError, match="operator"):
        add_source(rig.pgq, url.upper().replace("FILE", "FiLe"), topic="Topic")
    assert list_sources(rig.pgq) == []


def test_a_file_outside_the_folder_is_not_read_even_when_the_row_says_so(rig: Rig) -> None:
    source = rig.feed("a.rss", rss([]))
    rig.rows("update content.sources set url = 'file:///etc/passwd' where id = %s", [source])
    rig.run()
    assert rig.one("select last_error from content.sources").startswith("file not allowed")


def test_an_unknown_topic_is_answered_with_those_there_are(rig: Rig) -> None:
    with pytest.raises(ConfigError, match="topic 'Nope' does not exist: the topics are 'Topic'"):
        add_source(rig.pgq, "https://example.com/", topic="Nope")


def test_the_inbox_says_what_to_do_when_it_is_empty(rig: Rig) -> None:
    assert list_digests(rig.pgq) == []
    with pytest.raises(PgQueueError, match="pgq demo"):
        get_digest(rig.pgq, "latest")
    with pytest.raises(PgQueueError, match="digest 7 does not exist"):
        get_digest(rig.pgq, "7")
    with pytest.raises(ConfigError, match="not valid"):
        get_digest(rig.pgq, "²")


def test_a_digest_is_read_by_its_id_and_the_latest_by_its_word(rig: Rig) -> None:
    rig.run()
    (listed,) = list_digests(rig.pgq, topic="Topic")
    assert get_digest(rig.pgq, str(listed["id"])) == get_digest(rig.pgq, "latest")
    assert listed["reason"] == "no items"


def test_a_database_without_our_tables_says_what_to_run(empty_database: str) -> None:
    app = PgQueue(empty_database)
    add_tasks(app)
    with pytest.raises(NotMigrated, match="pgq migrate"):
        add_topic(app, "Energy")
    app.close()


def test_the_pipeline_lives_in_a_schema_of_another_name_too(
    empty_database: str, tmp_path: Path
) -> None:
    from pgqueue.db import upgrade  # noqa: PLC0415 - SQLAlchemy, for this test alone

    app = PgQueue(empty_database, schema="shop")
    upgrade.move(app.settings, app.conninfo())
    add_tasks(app)
    rig = Rig(app, tmp_path)
    rig.feed("a.rss", rss([]))
    rig.run()
    assert rig.one("select count(*) from shop_content.digests") == 1
    app.close()
