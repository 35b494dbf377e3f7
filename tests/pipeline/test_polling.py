"""Sources over the network: asked politely, believed slowly, and never again when gone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from pipeline_rig import END, HOURS, START, Reply, Rig, Site, rss

BODY = rss([("Wind works of Windville are open to visitors", "Come and see.", START + HOURS)])
# As servers write them: weak, with odd quoting, and in a zone's own form.
ETAG, MODIFIED = 'W/"odd, \\"tag\\""', "Sat, 01 Jan 2022 00:00:00 +0000"


def windows(count: int) -> list[tuple[datetime, datetime]]:
    return [(START + n * HOURS, START + (n + 1) * HOURS) for n in range(count)]


def due_again(rig: Rig) -> None:
    rig.rows("update content.sources set next_poll_at = null")


def the_source(rig: Rig) -> dict[str, Any]:
    (row,) = rig.rows("select *, next_poll_at - last_polled_at as wait from content.sources")
    return row


def test_a_feed_is_asked_for_again_with_what_its_server_said_letter_by_letter(
    web_rig: Rig, site: Site
) -> None:
    web_rig.source(f"{site.url}/feed")
    site.reply = Reply(200, BODY.encode(), {"ETag": ETAG, "Last-Modified": MODIFIED})
    web_rig.run(*windows(2)[0])
    due_again(web_rig)
    site.reply = Reply(304)
    second = web_rig.run(*windows(2)[1])
    assert "If-None-Match" not in site.asked[0]
    assert site.asked[1]["If-None-Match"] == ETAG
    assert site.asked[1]["If-Modified-Since"] == MODIFIED
    assert second["counts"]["ingest"]["unchanged"] == 1
    assert (the_source(web_rig)["etag"], the_source(web_rig)["health"]) == (ETAG, "healthy")


def test_a_source_that_is_not_due_is_left_alone(web_rig: Rig, site: Site) -> None:
    web_rig.source(f"{site.url}/feed")
    site.reply = Reply(200, BODY.encode())
    web_rig.run(*windows(2)[0])
    assert timedelta(minutes=11) < the_source(web_rig)["wait"] < timedelta(minutes=19)
    assert web_rig.run(*windows(2)[1])["counts"]["ingest"]["polled"] == 0
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_time_gets_it(web_rig: Rig, site: Site, status: int) -> None:
    web_rig.source(f"{site.url}/feed")
    site.reply = Reply(status, headers={"Retry-After": "86400"})
    web_rig.run()
    row = the_source(web_rig)
    assert (row["failures"], row["last_error"]) == (1, f"http {status}")
    assert row["wait"] > timedelta(days=1) - timedelta(seconds=1)


def test_each_failure_doubles_the_wait_up_to_six_hours(web_rig: Rig, site: Site) -> None:
    web_rig.source(f"{site.url}/feed")
    site.reply = Reply(500)
    waits = []
    for window in windows(8):
        due_again(web_rig)
        web_rig.run(*window)
        waits.append(the_source(web_rig)["wait"].total_seconds() / 900)
    for expected, found in zip([1, 2, 4, 8, 16, 24, 24, 24], waits, strict=True):
        assert 0.8 * expected <= found <= 1.2 * expected


def test_a_feed_that_is_gone_is_never_asked_for_again(web_rig: Rig, site: Site) -> None:
    web_rig.source(f"{site.url}/feed")
    site.reply = Reply(410)
    web_rig.run(*windows(2)[0])
    due_again(web_rig)
    second = web_rig.run(*windows(2)[1])
    row = the_source(web_rig)
    assert (row["enabled"], row["health"]) == (False, "gone")
    assert second["counts"]["ingest"] == second["counts"]["ingest"] | {"polled": 0, "disabled": 1}
    assert len(site.asked) == 1


def test_a_moved_feed_gets_its_new_address_after_three_equal_answers(
    web_rig: Rig, site: Site
) -> None:
    web_rig.source(f"{site.url}/old")
    urls = []
    for number, window in enumerate(windows(5)):
        # The second answer names another place: counting begins anew.
        target = "/other" if number == 1 else "/new"
        site.reply = Reply(301, headers={"Location": target})
        site.replies = {target: Reply(200, BODY.encode())}
        due_again(web_rig)
        web_rig.run(*window)
        urls.append(the_source(web_rig)["url"].removeprefix(site.url))
    assert urls == ["/old", "/old", "/old", "/old", "/new"]
    assert the_source(web_rig)["canonical_url"] == f"{site.url}/new"


def test_an_address_that_nobody_allowed_is_refused_and_recorded(rig: Rig, site: Site) -> None:
    rig.source(f"{site.url}/feed")
    rig.run()
    assert site.asked == []
    assert "not allowed" in the_source(rig)["last_error"]
    assert rig.digest()["reason"] == "sources failing"


def test_one_feed_under_two_spellings_is_one_source(web_rig: Rig, site: Site) -> None:
    site.reply = Reply(200, BODY.encode())
    first = web_rig.source(f"{site.url}/feed")
    assert web_rig.source(f"{site.url}/feed?utm_source=x") == first
    web_rig.run()
    assert web_rig.digest(END)["counts"]["items"] == 1
