"""Named SQL statements, read from `.sql` files.

A file holds statements, each under a line `-- name: finish_jobs`. They are written against the
schema names `pgqueue` and `content`, so that they can be pasted into psql as they stand; `load`
puts the configured, quoted names in their place.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from pgqueue.errors import ConfigError
from pgqueue.settings import checked_schema

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_QUALIFIER = re.compile(r"(?<![\w.\"])(pgqueue|content)\.(?=[\w\"'])")


def quoted_schema(schema: str) -> str:
    """The schema as a quoted SQL identifier; raises ConfigError for anything but a plain name."""
    return f'"{checked_schema(schema)}"'


def content_schema(schema: str) -> str:
    """The schema of the content pipeline beside the queue's: `content` beside `pgqueue`."""
    return "content" if schema == "pgqueue" else f"{schema}_content"


def quoted_content_schema(schema: str) -> str:
    """The pipeline's schema beside this one, quoted; raises ConfigError like `quoted_schema`."""
    return f'"{content_schema(checked_schema(schema))}"'


def rendered(text: str, schema: str) -> str:
    """`text` with the schema names put in place of `pgqueue.` and `content.`."""
    names = {
        "pgqueue": quoted_schema(schema),
        "content": quoted_content_schema(schema),
    }
    return _QUALIFIER.sub(lambda match: names[match[1]] + ".", text)


@cache
def load(package: str, schema: str) -> dict[str, str]:
    """All statements of a package's `.sql` files by name, for this schema."""
    statements: dict[str, str] = {}
    for file in sorted(files(package).iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in statements:
                raise ConfigError(f"two SQL statements are named {name!r}, one in {file.name}")
            statements[name] = rendered(body, schema).strip().rstrip(";")
    return statements
