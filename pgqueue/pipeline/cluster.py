"""Stories of one topic: which item belongs to which, as a plan for one transaction to write.

Pure and deterministic: items are taken in the order (published_at, id), time comes from the window.
A story is kept as the mean of its originals' vectors. An item joins the active story to which its
average cosine (item · mean) is highest; stories are compared by the cosine of their means. With
hash-2048 on 2,413 labelled headlines this gave the best BCubed F1 of the four combinations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pgqueue.pipeline.embed import Matrix, Vector, unit_rows
from pgqueue.pipeline.sentences import clean_title
from pgqueue.pipeline.similar import find_copies, in_order

Status = Literal["developing", "stable", "closed"]

STABLE_AFTER = timedelta(hours=24)
CLOSED_AFTER = timedelta(hours=72)
DECAY_PER_DAY = 0.02
_DAY = 86_400.0


@dataclass(frozen=True, eq=False)
class Item:
    """An item of this window that has no story yet; `vector` is a unit row (or zero)."""

    id: int
    published_at: datetime
    title: str
    text: str
    vector: Vector
    canonical_url: str = ""
    content_hash: str = ""
    publisher: str = ""


@dataclass(frozen=True)
class Known:
    """An item of an earlier window, for copies of it to be found; its story may be closed."""

    id: int
    story_id: int
    published_at: datetime
    title: str
    text: str
    canonical_url: str = ""
    content_hash: str = ""
    duplicate_of: int | None = None


@dataclass(frozen=True, eq=False)
class Story:
    """A story. `id` is negative while it is new: minus the id of the item that began it.

    `centroid` is the mean (not scaled to length 1) of its `count` originals; `copies` are counted
    apart and move neither centroid nor times.
    """

    id: int
    centroid: Vector
    count: int
    first_item_at: datetime
    last_item_at: datetime
    copies: int = 0
    status: Status = "developing"
    title: str = ""


@dataclass(frozen=True)
class Assignment:
    """One item's story; `similarity` is its cosine to the story's centroid after this plan.

    A copy whose original lies in a closed story goes there with similarity 1.
    """

    item_id: int
    story_id: int
    similarity: float
    duplicate_of: int | None = None


@dataclass(frozen=True)
class Merge:
    """Two existing stories are one: the items of `loser` move to `winner`, the older id."""

    loser: int
    winner: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What to write: each item's assignment, stories new or changed, merges of existing ones."""

    assignments: tuple[Assignment, ...]
    stories: tuple[Story, ...]
    merges: tuple[Merge, ...]


def status_of(last_item_at: datetime, window_end: datetime) -> Status:
    """Return the status of a story whose last original came at `last_item_at`."""
    quiet = window_end - last_item_at
    if quiet >= CLOSED_AFTER:
        return "closed"
    return "stable" if quiet >= STABLE_AFTER else "developing"


def cluster(
    items: Iterable[Item],
    stories: Iterable[Story],
    known: Iterable[Known] = (),
    *,
    join: float,
    merge: float,
    window_end: datetime,
) -> Plan:
    """Return the plan for new `items`, given the topic's stories that are not closed.

    `join` and `merge` are the embedder's thresholds. Without items only statuses change.
    """
    items, earlier = in_order(items), {entry.id: entry for entry in known}
    originals_of = find_copies(items, earlier.values())
    originals = [item for item in items if item.id not in originals_of]
    active = [story for story in stories if story.status != "closed"]
    board = _Board(sorted(active, key=lambda story: story.id), originals)
    for item in originals:
        board.place(item, join)
    board.merge_touched(merge)
    homes = {item.id: board.home(item) for item in originals}
    copies = _resolve(originals_of, earlier, homes, board)
    for _, story_id in copies.values():
        board.count_copy(story_id)
    return Plan(
        assignments=tuple(_assignment(item, homes, copies, board) for item in items),
        stories=tuple(board.changed(window_end)),
        merges=tuple(board.merges()),
    )


def _resolve(
    originals_of: dict[int, int],
    known: dict[int, Known],
    homes: dict[int, int],
    board: _Board,
) -> dict[int, tuple[int, int]]:
    """Return copy -> (its first original, the story of that)."""
    found = {}
    for item_id, original in originals_of.items():
        if original in homes:
            found[item_id] = (original, homes[original])
            continue
        entry = known[original]
        first = entry.id if entry.duplicate_of is None else entry.duplicate_of
        found[item_id] = (first, board.survivor(entry.story_id))
    return found


def _assignment(
    item: Item, homes: dict[int, int], copies: dict[int, tuple[int, int]], board: _Board
) -> Assignment:
    if item.id in homes:
        story_id = homes[item.id]
        return Assignment(item.id, story_id, board.similarity(item, story_id))
    original, story_id = copies[item.id]
    return Assignment(item.id, story_id, board.similarity(item, story_id), original)


class _Board:
    """The stories while items are placed: existing ones by id, then new ones as they come.

    A lower position is an older story, so it wins ties and survives merges.
    """

    def __init__(self, stories: Sequence[Story], originals: Sequence[Item]) -> None:
        vectors = [story.centroid for story in stories] + [item.vector for item in originals]
        room = len(vectors)
        self.stories = list(stories)
        self.means: Matrix = np.zeros((room, vectors[0].size if vectors else 0), np.float32)
        self.units: Matrix = np.zeros_like(self.means)
        self.times = np.zeros((room, 2))
        self.positions: dict[int, int] = {}
        self.touched: set[int] = set()
        self.into: dict[int, int] = {}
        self.placed: dict[int, int] = {}
        self.items: dict[int, list[Item]] = defaultdict(list)
        self.existing = len(stories)
        self.alive = np.zeros(room, dtype=bool)
        for at, story in enumerate(stories):
            self._load(at, story)

    def place(self, item: Item, join: float) -> None:
        at = self._nearest(item, join)
        self.stories.append(_begun_by(item)) if at is None else self._join(at, item)
        at = len(self.stories) - 1 if at is None else at
        self._load(at, self.stories[at])
        self.touched.add(at)
        self.placed[item.id] = at
        self.items[at].append(item)

    def _nearest(self, item: Item, join: float) -> int | None:
        size = len(self.stories)
        if not size:
            return None
        moment = item.published_at.timestamp()
        links = self.means[:size] @ item.vector - _decay(self.times[:size], moment, moment)
        at = int(links.argmax())
        return at if links[at] >= join else None

    def _join(self, at: int, item: Item) -> None:
        self.stories[at] = _together(self.stories[at], _begun_by(item))

    def _load(self, at: int, story: Story) -> None:
        self.means[at] = story.centroid
        self.times[at] = story.first_item_at.timestamp(), story.last_item_at.timestamp()
        self.units[at] = unit_rows(story.centroid)
        self.alive[at] = True
        self.positions[story.id] = at

    def merge_touched(self, threshold: float) -> None:
        """Merge, best pair first, while a touched story is that close to an active one."""
        rows = {at: self._links(at) for at in sorted(self.touched)}
        while rows:
            at = max(rows, key=lambda row: float(rows[row].max()))
            other = int(rows[at].argmax())
            if rows[at][other] < threshold:
                return
            winner, loser = sorted((at, other))
            self._absorb(winner, loser)
            rows.pop(loser, None)
            rows[winner] = self._links(winner)
            for row, links in rows.items():
                links[loser] = -np.inf
                links[winner] = rows[winner][row]

    def _links(self, at: int) -> NDArray[np.float64]:
        """Return the cosine of every other living story to the one at `at`, less the decay."""
        size = len(self.stories)
        first, last = self.times[at]
        costs = _decay(self.times[:size], first, last)
        links: NDArray[np.float64] = np.subtract(self.units[:size] @ self.units[at], costs)
        links[~self.alive[:size]] = -np.inf
        links[at] = -np.inf
        return links

    def _absorb(self, winner: int, loser: int) -> None:
        self.stories[winner] = _together(self.stories[winner], self.stories[loser])
        self._load(winner, self.stories[winner])
        self.alive[loser] = False
        self.into[loser] = winner
        self.touched.add(winner)
        self.items[winner] += self.items.pop(loser, [])

    def _end(self, at: int) -> int:
        while at in self.into:
            at = self.into[at]
        return at

    def home(self, item: Item) -> int:
        return self.stories[self._end(self.placed[item.id])].id

    def survivor(self, story_id: int) -> int:
        at = self.positions.get(story_id)
        return story_id if at is None else self.stories[self._end(at)].id

    def count_copy(self, story_id: int) -> None:
        at = self.positions.get(story_id)
        if at is not None:
            self.stories[at] = replace(self.stories[at], copies=self.stories[at].copies + 1)
            self.touched.add(at)

    def similarity(self, item: Item, story_id: int) -> float:
        at = self.positions.get(story_id)
        if at is None:
            return 1.0
        return round(float(self.units[at] @ item.vector), 6)

    def changed(self, window_end: datetime) -> Iterable[Story]:
        for at, story in enumerate(self.stories):
            status = status_of(story.last_item_at, window_end)
            if at in self.into or (at not in self.touched and status == story.status):
                continue
            title = story.title if at < self.existing else self._headline(at)
            yield replace(story, status=status, title=title)

    def _headline(self, at: int) -> str:
        items = in_order(self.items[at])
        links = np.array([item.vector for item in items]) @ self.means[at]
        best = items[int(links.argmax())]
        return clean_title(best.title, best.publisher)

    def merges(self) -> Iterable[Merge]:
        for at in sorted(self.into):
            if at < self.existing:
                yield Merge(self.stories[at].id, self.stories[self._end(at)].id)


def _begun_by(item: Item) -> Story:
    return Story(-item.id, item.vector, 1, item.published_at, item.published_at)


def _together(older: Story, newer: Story) -> Story:
    count = older.count + newer.count
    mean = (older.centroid * older.count + newer.centroid * newer.count) / count
    return replace(
        older,
        centroid=mean.astype(np.float32),
        count=count,
        copies=older.copies + newer.copies,
        first_item_at=min(older.first_item_at, newer.first_item_at),
        last_item_at=max(older.last_item_at, newer.last_item_at),
    )


def _decay(times: NDArray[np.float64], first: float, last: float) -> NDArray[np.float64]:
    """Return what the time between [first, last] and each story costs; inf beyond 72 hours."""
    gaps = np.maximum(0, np.maximum(first - times[:, 1], times[:, 0] - last))
    costs = np.asarray(gaps / _DAY * DECAY_PER_DAY, np.float64)
    costs[gaps > CLOSED_AFTER.total_seconds()] = np.inf
    return costs
