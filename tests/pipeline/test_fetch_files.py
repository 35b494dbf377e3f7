from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgqueue.pipeline.fetch import FetchError, fetch


@pytest.fixture
def feeds(tmp_path: Path) -> Path:
    folder = tmp_path / "feeds"
    folder.mkdir()
    (folder / "a feed.xml").write_bytes(b"<rss/>")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def refused(url: str, folder: Path) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(url, files_under=(folder,))
    return caught.value.reason


def test_a_file_below_an_allowed_folder_is_read(feeds: Path) -> None:
    url = (feeds / "a feed.xml").as_uri()
    got = fetch(url, files_under=(feeds,))
    assert (got.status, got.body, got.url) == (200, b"<rss/>", url)


def test_an_unchanged_file_is_not_modified_and_a_changed_one_is(feeds: Path) -> None:
    file = feeds / "a feed.xml"
    first = fetch(file.as_uri(), files_under=(feeds,))
    again = fetch(file.as_uri(), etag=first.etag, files_under=(feeds,))
    assert again.not_modified
    assert again.body == b""
    file.write_bytes(b"<rss></rss>")
    assert fetch(file.as_uri(), etag=first.etag, files_under=(feeds,)).status == 200


def test_no_file_is_read_unless_a_folder_is_allowed(feeds: Path) -> None:
    with pytest.raises(FetchError, match="file not allowed"):
        fetch((feeds / "a feed.xml").as_uri())


def test_dots_links_and_other_hosts_do_not_lead_out_of_the_folder(feeds: Path) -> None:
    (feeds / "link").symlink_to(feeds.parent / "secret")
    (feeds / "up").symlink_to(feeds.parent)
    base = feeds.as_uri()
    for name in ("../secret", "%2e%2e/secret", "link", "up/secret", "../feeds-not", "\0", "%00"):
        assert refused(f"{base}/{name}", feeds).startswith("file not allowed"), name
    assert refused(f"file://other.example{feeds}/a.xml", feeds).startswith("file not allowed")


def test_a_refusal_does_not_tell_whether_the_file_exists(feeds: Path) -> None:
    there, not_there = feeds.parent / "secret", feeds.parent / "nothing"
    assert refused(there.as_uri(), feeds) == refused(not_there.as_uri(), feeds)


def test_a_link_within_the_folder_is_followed(feeds: Path) -> None:
    (feeds / "link").symlink_to(feeds / "a feed.xml")
    assert fetch((feeds / "link").as_uri(), files_under=(feeds,)).body == b"<rss/>"


def test_a_missing_file_a_folder_and_a_pipe_are_told_at_once(feeds: Path) -> None:
    os.mkfifo(feeds / "pipe")
    assert refused((feeds / "none.xml").as_uri(), feeds) == "file: No such file or directory"
    assert refused(feeds.as_uri(), feeds) == "file: Is a directory"
    assert refused((feeds / "pipe").as_uri(), feeds) == "file: not a regular file"


def test_a_file_larger_than_the_limit_is_refused(feeds: Path) -> None:
    with pytest.raises(FetchError, match="too large: more than 5 bytes"):
        fetch((feeds / "a feed.xml").as_uri(), files_under=(feeds,), limit=5)
