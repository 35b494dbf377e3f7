"""Promises of the digest: nothing invented, nothing twice, a reason when it is empty."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.pipeline.digest import (
    DigestBody,
    DigestItem,
    DigestStory,
    Edition,
    digest,
    shown_items,
)
from pgqueue.pipeline.embed import choose, text_of
from pgqueue.pipeline.points import stands_in
from pgqueue.pipeline.sentences import clean_title, normal, split, word_count

START = datetime(2026, 3, 1, 6, tzinfo=UTC)
END = START + timedelta(hours=8)
HASH = choose("hash-512")
EDITION = Edition("Economy", START, END, keywords=("banks", "interest rates"), sources=3)

RATES = (
    "The central bank raised its main interest rate by half a point on Monday. It was the third "
    "rise of interest rates this year. Governor Dr. A. Nováková said that prices still grow by "
    "5.2 percent a year.\n\nRead more about interest rates at our site today. Yes. "
    "Two members of the board voted against the rise of the rate."
)
FROG = "Biologists have found a frog in the cloud forest that was thought to be lost for a century."


def item(number: int, title: str, text: str = "", **more: object) -> DigestItem:
    made = DigestItem(
        id=number,
        title=title,
        url=f"https://news{number}.example/{number}",
        publisher=f"Paper {number}",
        published_at=START + timedelta(hours=1, minutes=number),
        text=text,
        vector=HASH.embed([text_of(title, text)])[0],
    )
    return replace(made, **more)  # type: ignore[arg-type] # a test's own fields


def story(number: int, *items: DigestItem) -> DigestStory:
    vectors = [entry.vector for entry in items] or [np.zeros(HASH.dim, np.float32)]
    return DigestStory(number, np.mean(vectors, axis=0).astype(np.float32), "developing", items)


BANK = story(1, item(11, "Central bank raises interest rates", RATES))
LOST_FROG = story(2, item(21, "Lost frog found", FROG), item(22, "Frog is back", FROG))


def later(edition: Edition, *past: DigestBody) -> Edition:
    span = edition.end - edition.start
    return replace(
        edition,
        start=edition.end,
        end=edition.end + span,
        past=(*edition.past, *past),
    )


def tell(*stories: DigestStory, edition: Edition = EDITION) -> DigestBody:
    return digest(edition, stories, HASH)


def test_a_digest_is_json_and_says_its_version_window_and_topic() -> None:
    body = tell(BANK, LOST_FROG)
    assert json.loads(json.dumps(body)) == body
    assert (body["version"], body["topic"], body["reason"]) == (1, "Economy", None)
    assert body["window"] == {
        "start": "2026-03-01T06:00:00Z",
        "end": "2026-03-01T14:00:00Z",
        "mode": "window",
    }


def test_points_are_verbatim_sentences_of_6_to_60_words_cited_to_their_items() -> None:
    (told,) = tell(BANK)["stories"]
    assert 1 <= len(told["points"]) <= 3
    sentences = split(RATES)
    for point in told["points"]:
        assert point["text"] in sentences
        assert point["items"] == [11]
        assert 6 <= word_count(point["text"]) <= 60
        assert not point["text"].startswith("Read more")


def test_a_sentence_that_stands_in_several_items_cites_them_all_and_is_told_once() -> None:
    (told,) = tell(LOST_FROG)["stories"]
    assert told["points"] == [{"text": FROG, "items": [21, 22]}]


def test_a_story_of_bare_headlines_is_told_by_its_other_headlines() -> None:
    first = item(1, "Central bank raises interest rates by half a point")
    second = item(2, "Central bank governor defends the third rise this year")
    (told,) = tell(story(1, first, second))["stories"]
    assert told["title"] in (first.title, second.title)
    assert [point["text"] for point in told["points"]] == [
        entry.title for entry in (first, second) if entry.title != told["title"]
    ]


def test_copies_are_grouped_under_their_original_but_counted_as_publishers() -> None:
    copy = item(12, "Interest rates raised", RATES, duplicate_of=11, publisher="Wire")
    (told,) = tell(story(1, *BANK.items, copy))["stories"]
    (source,) = told["sources"]
    assert [entry["item_id"] for entry in source["copies"]] == [12]
    assert (told["publishers"], told["items"]) == (2, [11, 12])
    assert told["points"][0]["items"] == [11, 12]


def test_one_publisher_reporting_twice_counts_once() -> None:
    entries = [replace(entry, publisher=" The Daily ") for entry in LOST_FROG.items]
    (told,) = tell(story(2, *entries))["stories"]
    assert told["publishers"] == 1


def test_the_score_is_the_sum_of_the_parts_it_shows() -> None:
    (told,) = tell(BANK)["stories"]
    parts = told["score_parts"]
    assert set(parts) == {"publishers", "relevance", "recency", "novelty"}
    assert told["score"] == pytest.approx(sum(parts.values()))
    assert parts["publishers"] == pytest.approx(0.35 * math.log(2), abs=1e-4)
    hours = (END - BANK.items[0].published_at).total_seconds() / 3600
    assert parts["recency"] == pytest.approx(0.2 * 0.5 ** (hours / 12), abs=1e-4)
    assert parts["novelty"] == 0.2


def test_the_story_about_the_topic_comes_first() -> None:
    body = tell(story(1, LOST_FROG.items[0]), story(2, *BANK.items))
    assert [entry["story_id"] for entry in body["stories"]] == [2, 1]
    assert (
        body["stories"][0]["score_parts"]["relevance"]
        > body["stories"][1]["score_parts"]["relevance"]
    )


def test_what_was_told_before_is_less_novel_even_as_another_story() -> None:
    edition = later(EDITION, tell(BANK))
    fresh, stale = LOST_FROG, story(3, item(31, BANK.items[0].title, RATES))
    told = {entry["story_id"]: entry for entry in tell(fresh, stale, edition=edition)["stories"]}
    assert told[2]["score_parts"]["novelty"] > told[3]["score_parts"]["novelty"]
    assert told[3]["score_parts"]["novelty"] == pytest.approx(0, abs=0.02)


def test_only_the_last_seven_digests_count_for_novelty() -> None:
    edition = later(EDITION, tell(BANK))
    for _ in range(7):
        edition = later(edition, tell(edition=edition))
    stale = story(3, item(31, BANK.items[0].title, RATES))
    assert tell(stale, edition=edition)["stories"][0]["score_parts"]["novelty"] == 0.2


def test_a_story_is_not_told_twice_when_nothing_is_new() -> None:
    body = tell(BANK, edition=later(EDITION, tell(BANK)))
    assert (body["stories"], body["reason"]) == ([], "all seen")
    assert body["counts"]["stories_seen"] == 1


def test_what_a_digest_long_ago_has_shown_is_not_told_again() -> None:
    edition = replace(EDITION, seen=shown_items([tell(BANK)]))
    assert tell(BANK, edition=edition)["reason"] == "all seen"


def test_a_copy_of_something_told_is_nothing_new() -> None:
    copy = item(12, "Interest rates raised", RATES, duplicate_of=11)
    body = tell(story(1, *BANK.items, copy), edition=later(EDITION, tell(BANK)))
    assert body["reason"] == "all seen"


def test_a_story_with_news_is_told_again_by_its_new_items_alone() -> None:
    news = "On Tuesday the finance minister criticised the bank for raising the interest rates."
    grown = story(1, *BANK.items, item(12, "Minister attacks bank over interest rates", news))
    (told,) = tell(grown, edition=later(EDITION, tell(BANK)))["stories"]
    assert told["new_since"] == "2026-03-01T14:00:00Z"
    assert told["new_items"] == [12]
    assert told["points"] == [{"text": news, "items": [12]}]
    assert told["title"] == "Minister attacks bank over interest rates"
    assert [entry["new"] for entry in told["sources"]] == [False, True]


def test_a_first_telling_has_no_new_since() -> None:
    assert tell(BANK)["stories"][0]["new_since"] is None


@pytest.mark.parametrize(
    ("sources", "failing", "reason"),
    [(3, 0, "no items"), (3, 2, "no items"), (3, 3, "sources failing"), (0, 0, "no items")],
)
def test_an_empty_digest_has_its_reason(sources: int, failing: int, reason: str) -> None:
    edition = replace(EDITION, sources=sources, sources_failing=failing)
    body = tell(edition=edition)
    assert (body["stories"], body["reason"]) == ([], reason)
    assert body["counts"]["sources_failing"] == failing


def test_what_does_not_fit_is_counted_and_may_come_next_time() -> None:
    first = tell(BANK, LOST_FROG, edition=replace(EDITION, limit=1))
    assert (first["counts"]["stories"], first["counts"]["stories_left_out"]) == (1, 1)
    second = tell(BANK, LOST_FROG, edition=later(EDITION, first))
    told = [entry["story_id"] for body in (first, second) for entry in body["stories"]]
    assert sorted(told) == [1, 2]


def test_the_same_input_in_any_order_gives_the_same_digest() -> None:
    turned = story(2, *reversed(LOST_FROG.items))
    assert json.dumps(tell(BANK, LOST_FROG)) == json.dumps(tell(turned, BANK))


TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("ab .!?\n,。今日ก\u00a0"), st.characters(codec="utf-8")),
    max_size=200,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_every_point_stands_verbatim_in_each_item_it_cites(rows: list[tuple[str, str]]) -> None:
    entries = [item(n, title, text + RATES) for n, (title, text) in enumerate(rows, 1)]
    by_id = {entry.id: entry for entry in entries}
    for told in tell(story(1, *entries))["stories"]:
        assert told["points"]
        for point in told["points"]:
            assert point["items"]
            assert all(stands_in(point["text"], by_id[number]) for number in point["items"])


@given(TEXTS)
def test_splitting_loses_nothing_but_whitespace(text: str) -> None:
    assert normal(" ".join(split(text))).replace(" ", "") == normal(text).replace(" ", "")


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        ("en", "Dr. Li paid $3.5 million. He left!", ["Dr. Li paid $3.5 million.", "He left!"]),
        ("en", "The U.S. agreed. A deal is near.", ["The U.S. agreed.", "A deal is near."]),
        ("en", "One line\nof a sentence.\n\nNext one", ["One line of a sentence.", "Next one"]),
        ("zh", "今天天气很好。你来吗", ["今天天气很好。", "你来吗"]),
        ("hi", "यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("sk", "Dňa 5. mája prišiel p. Kos. Išiel.", ["Dňa 5. mája prišiel p. Kos.", "Išiel."]),
        ("xx", "Unknown language. Still works.", ["Unknown language.", "Still works."]),
        ("", "No language. Still works.", ["No language.", "Still works."]),
        ("en", "  \n ", []),
    ],
)  # fmt: skip
def test_text_is_split_into_sentences(lang: str, text: str, expected: Sequence[str]) -> None:
    assert split(text, lang) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), ("It's 3.5 km-long", 3), ("今天天气很好", 3), ("ไทย", 2), ("...", 0)],
)
def test_words_are_counted_in_any_script(text: str, words: int) -> None:
    assert word_count(text) == words


@pytest.mark.parametrize(
    ("title", "publisher", "expected"),
    [
        ("Bank raises rates - The Daily News", "Daily News", "Bank raises rates"),
        ("Bank raises rates | Reuters", "Reuters", "Bank raises rates"),
        ("Bank raises rates - again", "Reuters", "Bank raises rates - again"),
        ("BREAKING:  Bank &amp; board\nraise rates", "", "Bank & board raise rates"),
        ("UPDATE 2-Bank raises rates", "Reuters", "Bank raises rates"),
        ("BREAKING:", "", "BREAKING:"),
        ("", "", ""),
    ],
)
def test_headlines_are_cleaned(title: str, publisher: str, expected: str) -> None:
    assert clean_title(title, publisher) == expected
