"""What libraries log through the standard library comes out in the same form as ours."""

from __future__ import annotations

import logging

import pytest

from pgqueue.observe.log import _StandardLogs


def test_a_librarys_record_becomes_a_line_with_its_loggers_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = logging.LogRecord("psycopg.pool", logging.WARNING, "", 0, "lost %s", ("it",), None)
    _StandardLogs().emit(record)
    said = capsys.readouterr()
    assert "lost it" in said.out + said.err
    assert "psycopg.pool" in said.out + said.err
