"""Promises of the embedders."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.errors import ConfigError, ExtraMissing
from pgqueue.pipeline import embed

NAMES = embed.present()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=80), max_size=5))
def test_every_text_becomes_a_unit_row_or_the_zero_row(name: str, texts: list[str]) -> None:
    embedder = embed.choose(name)
    rows = embedder.embed(texts)
    assert rows.shape == (len(texts), embedder.dim)
    assert rows.dtype == np.float32
    for row, text in zip(rows, texts, strict=True):
        length = float(np.linalg.norm(row))
        assert length == pytest.approx(1, abs=1e-5) or (length == 0 and np.isfinite(row).all())
        assert length == 0 or embed.tokens(text)


@pytest.mark.parametrize("name", NAMES)
def test_texts_without_words_are_zero_and_similar_to_nothing(name: str) -> None:
    rows = embed.choose(name).embed(["", "   ", "!?", "🙂", "a real headline"])
    assert not rows[:4].any()
    assert rows[4].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_the_texts_around_it(name: str) -> None:
    texts = [f"headline number {n} about subject {n % 7}" for n in range(600)]
    embedder = embed.choose(name)
    together = embedder.embed(texts)
    assert np.allclose(together[511], embedder.embed([texts[511]])[0], atol=1e-6)


def test_hash_vectors_are_the_same_in_another_process_with_another_hash_seed() -> None:
    text = "Škoda unveils 今日 the U.S. plan"
    code = (
        "import sys; from pgqueue.pipeline import embed;"
        "sys.stdout.write(embed.to_bytes(embed.choose('hash-512').embed([sys.argv[1]])[0]).hex())"
    )
    here = embed.to_bytes(embed.choose("hash-512").embed([text])[0]).hex()
    for seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code, text],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout == here


def test_hash_vectors_never_change_between_releases() -> None:
    row = embed.choose("hash-512").embed(["central bank raises interest rates"])[0]
    signs = [np.flatnonzero(row > 0), np.flatnonzero(row < 0)]
    # Stored vectors are compared with new ones: other buckets would need another name.
    assert [zlib.crc32(at.astype("<i8").tobytes()) for at in signs] == [3103355904, 2650542573]


@pytest.mark.parametrize(
    ("left", "right", "stranger"),
    [
        (
            "Central bank raises interest rates by half a point",
            "Interest rates raised half a point by central bank",
            "Dragon wins the animation award at the film festival",
        ),
        ("央行宣布加息半个百分点", "央行今日加息半个百分点", "动画电影获得最佳影片奖"),
        ("Národná banka zvýšila úrokové sadzby", "Banka zvýšila sadzby", "Film získal cenu"),
    ],
)
def test_the_same_news_is_nearer_than_other_news_in_any_script(
    left: str, right: str, stranger: str
) -> None:
    rows = embed.choose("hash-2048").embed([left, right, stranger])
    assert rows[0] @ rows[1] > embed.choose("hash-2048").join > rows[0] @ rows[2]


def test_long_unrelated_texts_do_not_meet_in_their_function_words() -> None:
    mayor = (
        "The mayor said on Monday that the city would build a tunnel under the river, and that "
        "it has been waiting for the money from the state for more than ten years."
    )
    biologists = (
        "A team of biologists said that they have found a frog which was thought to be lost, "
        "and that it is the first of its kind to be seen in the forest for a century."
    )
    rows = embed.choose("hash-2048").embed([mayor, biologists])
    assert rows[0] @ rows[1] < embed.choose("hash-2048").join


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)
)
def test_vectors_survive_their_bytes(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    data = embed.to_bytes(vector)
    assert len(data) == 4 * len(values)
    assert (embed.from_bytes(memoryview(data)) == vector).all()


def test_only_the_title_and_the_first_120_words_are_embedded() -> None:
    text = " ".join(f"w{n}" for n in range(500))
    assert embed.text_of(" Title ", text).split() == ["Title", *text.split()[:120]]


def test_a_text_without_spaces_is_cut_too() -> None:
    assert len(embed.text_of("", "字" * 50_000)) == embed.HEAD_CHARACTERS


def test_auto_takes_the_best_embedder_present(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embed.choose("auto").name == embed.choose().name == NAMES[0] == "hash-2048"
    monkeypatch.setattr(embed, "_has", lambda module: module is None)
    assert embed.present() == ["hash-2048", "hash-512"]


def test_an_unknown_embedder_is_refused_with_the_list_of_those_present() -> None:
    with pytest.raises(ConfigError, match=r"'word2vec' is not known.*auto, hash-2048, .*hash-512"):
        embed.choose("word2vec")


def test_a_known_embedder_without_its_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embed, "_has", lambda module: module is None)
    with pytest.raises(ExtraMissing, match=r"pip install 'pgqueue\[wordllama\]'"):
        embed.choose("wordllama-256")
