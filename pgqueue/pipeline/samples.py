"""The demo's news: invented, on one topic, in five formats; and public feeds for a live run.

The templates in `samples/` hold no dates but places in the window, as {{rfc822:0.25}} or
{{iso:0.25}}: a quarter after its start. {{edition}} names the window, so that a later window has
articles of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile

SAMPLE_TOPIC = "Energy and climate technology"
SAMPLE_KEYWORDS = ("energy", "wind", "solar", "battery", "grid", "hydrogen", "heat", "carbon")


@dataclass(frozen=True)
class Source:
    """A feed's name for people and where it is: a file name, or an address."""

    name: str
    url: str


SAMPLE_FEEDS = (
    Source("Grid & Gale", "grid-and-gale.rss"),
    Source("The Harbour Ledger", "harbour-ledger.atom"),
    Source("Kilowatt Courier", "kilowatt-courier.xml"),
    Source("Northlight Wire", "northlight-wire.rdf"),
    Source("Volt Notes", "volt-notes.json"),
)
LIVE_FEEDS = (
    Source("BBC Science & Environment", "https://feeds.bbci.co.uk/news/science_and_environment/rss.xml"),
    Source("Carbon Brief", "https://www.carbonbrief.org/feed/"),
    Source("CleanTechnica", "https://cleantechnica.com/feed/"),
    Source("Electrek", "https://electrek.co/feed/"),
    Source("Grist", "https://grist.org/feed/"),
    Source("The Guardian: Energy", "https://www.theguardian.com/environment/energy/rss"),
)  # fmt: skip

# The last place is at 0.99: a hundredth of the window must hold the second that rounding may add.
_SHORTEST = timedelta(minutes=2)
# Bytes, since every template keeps the encoding that it declares.
_PLACE = re.compile(rb"\{\{(rfc822|iso|edition)(?::(0\.\d+))?\}\}")


def write_samples(folder: Path, *, window_start: datetime, window_end: datetime) -> list[Path]:
    """Write the sample feeds with all their dates inside [window_start, window_end).

    Returns the files, in the order of SAMPLE_FEEDS. The same window gives the same bytes, and a
    file that has them already is not touched, so its fetcher sees that nothing changed. The
    instants must know their zones; ValueError when they are less than two minutes apart.
    """
    # In UTC first: within one zone Python subtracts the clocks' faces, an hour wrong on DST days.
    start = window_start.astimezone(UTC)
    span = window_end.astimezone(UTC) - start
    if span < _SHORTEST:
        raise ValueError(f"a window of {span} is too short for the sample feeds: take two minutes")
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / feed.url, _filled(feed.url, start, span)) for feed in SAMPLE_FEEDS]


def _filled(name: str, start: datetime, span: timedelta) -> bytes:
    template = files("pgqueue.pipeline").joinpath("samples", name).read_bytes()

    def fill(place: re.Match[bytes]) -> bytes:
        shape, fraction = place.group(1), float(place.group(2) or 0)
        return _shown(shape, start + span * fraction).encode("ascii")

    return _PLACE.sub(fill, template)


def _shown(shape: bytes, instant: datetime) -> str:
    if shape == b"edition":
        return instant.strftime("%Y-%m-%d-%H%M")
    # Up to the next second, for the formats have no fractions: down, it could precede the start.
    whole = (instant + timedelta(microseconds=999_999)).replace(microsecond=0)
    if shape == b"iso":
        return whole.strftime("%Y-%m-%dT%H:%M:%SZ")
    return format_datetime(whole, usegmt=True)


def _write(path: Path, content: bytes) -> Path:
    if path.is_file() and path.read_bytes() == content:
        return path
    # In one step: another process may be reading the old one, or writing the same.
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
    return path
