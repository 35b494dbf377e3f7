"""The schema as pg_dump writes it, cleaned so that two dumps can be compared.

`python -m tests.project.dumping` (make snapshot) writes schema.sql anew.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from pgqueue import embedded
from pgqueue.db import upgrade
from pgqueue.embedded.wheel import find_binaries
from pgqueue.settings import normalised_url, read_settings

SNAPSHOT = Path(__file__).with_name("schema.sql")
DAY_PARTITIONS = "*.finished_jobs_*_2*"
"""Their names hold the date of the day the migration ran."""

# Comments, session settings, and psql's guard, whose key is random.
_NOISE = re.compile(
    r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)\n", re.MULTILINE
)


def dumped(url: str) -> str:
    """The schema of the database at `url` as SQL, without noise and without day partitions."""
    command = [
        str(find_binaries().bin / "pg_dump"),
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        f"--exclude-table={DAY_PARTITIONS}",
        url,
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", text)).strip() + "\n"


def write_snapshot() -> None:
    """Migrate an empty database of a server of its own and keep what pg_dump says."""
    with (
        # Not a folder of ours: as root the server runs as another user, who must reach it.
        tempfile.TemporaryDirectory(
            prefix="pgqdump-", dir="/tmp", ignore_cleanup_errors=True
        ) as folder,
        embedded.start(Path(folder)) as server,
    ):
        url = normalised_url(server.url)
        upgrade.move(read_settings(database_url=url), url)
        SNAPSHOT.write_text(dumped(url), encoding="utf-8")


if __name__ == "__main__":
    write_snapshot()
