"""What commands share: the app they work on, JSON in and out, times."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pgqueue import PgQueue

BUILT_IN_APP = "pgqueue.pipeline.app:pgq"

AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTR",
        help="Where your PgQueue stands; PGQUEUE_APP, else the built-in content pipeline.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, for machines.")
]


def load_app(target: str | None) -> PgQueue:
    """The PgQueue that `module:attribute` names; the current folder counts as importable."""
    from pgqueue import PgQueue
    from pgqueue.errors import ConfigError
    from pgqueue.settings import read_settings

    target = target or read_settings().app or BUILT_IN_APP
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"app {target!r} is not valid: use module:attribute")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"app {target!r} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"app {target!r} cannot be imported: {type(error).__name__}: {error} "
            "(PGQUEUE_DEBUG=1 shows where)"
        ) from error
    found = getattr(module, attribute, None)
    if not isinstance(found, PgQueue):
        what = "does not exist" if found is None else f"is a {type(found).__name__}"
        raise ConfigError(f"app {target!r}: {attribute} {what}; it must be a PgQueue")
    return found


def built_in_tasks() -> list[str] | None:
    """The tasks of the app that is there where nobody named one; None where it was not asked."""
    module, _, attribute = BUILT_IN_APP.partition(":")
    loaded = getattr(sys.modules.get(module), attribute, None)
    return None if loaded is None else loaded.tasks.names()


def ready_app(target: str | None) -> PgQueue:
    """`load_app`, connected to a database that this version can work with.

    Raises DatabaseUnreachable, NotMigrated or SchemaTooNew before a command has written anything.
    """
    from pgqueue.db.version import check_version

    pgq = load_app(target)
    with pgq.connection() as connection:
        check_version(connection, pgq.settings.schema_name)
    return pgq


def parsed_json(text: str, what: str) -> dict[str, Any]:
    """A JSON object given on the command line; raises ConfigError with the place."""
    from pgqueue.errors import ConfigError

    value = any_json(text, what)
    if not isinstance(value, dict):
        raise ConfigError(f"{what} must be a JSON object, such as '{{\"n\": 1}}'")
    return value


def any_json(text: str, what: str) -> Any:
    """What the JSON given on the command line says; raises ConfigError with the place."""
    from pgqueue.errors import ConfigError

    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise ConfigError(f"{what} is not JSON: it is nested too deeply") from None


def print_json(document: Any) -> None:
    """The one JSON document on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False, default=_plain, indent=2))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
    """Rows for people; `empty` where there are none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo(empty)
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(row[column])) for column in columns))
    console = Console()
    # Piped into a file or a test there is no width to fit into.
    console.width = console.width if console.is_terminal else 200
    console.print(table)


def shown(value: Any) -> str:
    """A value for people; times in ISO 8601 with zone, to the second."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return str(value)
