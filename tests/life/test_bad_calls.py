"""Every malformed call has its exact error, and leaves no job behind."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgqueue
from pgqueue import (
    ConfigError,
    JobFilter,
    JobNotFound,
    Operator,
    PayloadInvalid,
    PgQueue,
    Retry,
    RetryAfter,
    Snooze,
    TaskUnknown,
    errors,
)
from pgqueue.engine.retry import wait_or_end
from proving import value

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - what is to be refused
AWARE = datetime(2030, 1, 1, tzinfo=UTC)
NAME = "1 to 100 letters, digits and the signs _ . : -"
NUL = "without NUL or lone surrogates"
PAYLOAD = "payload of task 'add' is not valid: "


class Known:
    """An app with one task."""

    def __init__(self, pgq: PgQueue) -> None:
        self.pgq = pgq

        @pgq.task
        def add(a: int, b: int = 2) -> int:
            return a + b

        @pgq.task
        def anything(what: Any) -> None: ...

        self.add, self.anything = add, anything


@pytest.fixture
def known(pgq: PgQueue) -> Known:
    return Known(pgq)


def option(**options: Any) -> Callable[[Known], Any]:
    return lambda known: known.add.using(**options).enqueue(1)


def holding_itself() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"priority": 10}, "priority 10 is not valid: 0 to 9, higher first"),
    ({"priority": -1}, "priority -1 is not valid: 0 to 9, higher first"),
    ({"priority": "5"}, "priority '5' is not valid: 0 to 9, higher first"),
    ({"priority": 5.0}, "priority 5.0 is not valid: 0 to 9, higher first"),
    ({"priority": True}, "priority True is not valid: 0 to 9, higher first"),
    ({"queue": ""}, f"queue name '' is not valid: {NAME}"),
    ({"queue": None}, f"queue name None is not valid: {NAME}"),
    ({"queue": "a b"}, f"queue name 'a b' is not valid: {NAME}"),
    ({"queue": "a\n"}, f"queue name 'a\\n' is not valid: {NAME}"),
    ({"run_at": NAIVE}, "run_at 2030-01-01T00:00:00 has no time zone: use an aware datetime"),
    ({"run_at": "2030-01-01"}, "run_at '2030-01-01' is not valid: use an aware datetime"),
    (
        {"run_at": date(2030, 1, 1)},
        "run_at datetime.date(2030, 1, 1) is not valid: use an aware datetime",
    ),
    (
        {"run_at": datetime.max.replace(tzinfo=UTC)},
        "run_at 9999-12-31T23:59:59.999999+00:00 is not valid: from the year 1970 to 9998",
    ),
    (
        {"run_at": AWARE, "delay": 3},
        "run_at and delay exclude each other: give one of them",
    ),
    ({"delay": -1}, "delay -1 is not valid: 0 seconds or more, 100 years at most"),
    ({"delay": math.nan}, "delay nan is not valid: 0 seconds or more, 100 years at most"),
    ({"delay": 1e12}, "delay 1000000000000.0 is not valid: 0 seconds or more, 100 years at most"),
    ({"delay": 10**400}, "is not valid: 0 seconds or more, 100 years at most"),
    ({"delay": "5"}, "delay '5' is not valid: 0 seconds or more, 100 years at most"),
    ({"delay": None}, "delay None is not valid: 0 seconds or more, 100 years at most"),
    ({"expires_at": NAIVE}, "expires_at 2030-01-01T00:00:00 has no time zone"),
    ({"expires_at": "soon"}, "expires_at 'soon' is not valid: use an aware datetime"),
    ({"tenant": 5}, f"tenant 5 is not valid: text of 1 to 200 bytes, {NUL}"),
    ({"tenant": ""}, f"tenant '' is not valid: text of 1 to 200 bytes, {NUL}"),
    ({"tenant": "a\0"}, f"tenant 'a\\x00' is not valid: text of 1 to 200 bytes, {NUL}"),
    ({"tenant": "\ud800"}, f"tenant '\\ud800' is not valid: text of 1 to 200 bytes, {NUL}"),
    ({"tags": "a"}, "tags 'a' are not valid: a list of strings"),
    ({"tags": [1]}, "tags (1,) are not valid: a list of strings"),
    ({"tags": 5}, "tags 5 are not valid: a list of strings"),
    ({"tags": ["a\0"]}, f"tag 'a\\x00' is not valid: text of at most 200 bytes, {NUL}"),
    ({"tags": ["a" * 201]}, f"… is not valid: text of at most 200 bytes, {NUL}"),
    ({"tags": [str(n) for n in range(10_000)]}, "10,000 tags are too many: 100 at most"),
    ({"unique_key": 5}, f"unique_key 5 is not valid: text of 1 to 2000 bytes, {NUL}"),
    ({"unique_key": ""}, f"unique_key '' is not valid: text of 1 to 2000 bytes, {NUL}"),
    ({"unique_key": "ä" * 1001}, "unique_key has 2002 bytes, and 2000 is the most"),
    (
        {"unique_key": "k", "unique_mode": "drop"},
        "unique_mode 'drop' is not valid: skip, replace, raise",
    ),
    (
        {"unique_key": "k", "unique_scope": "user"},
        "unique_scope 'user' is not valid: any of task, queue, tenant",
    ),
    ({"unique_key": "k", "unique_scope": 5}, "unique_scope 5 is not valid: a list of strings"),
    ({"unique_for": 5}, "unique_for needs a unique_key"),
    (
        {"unique_key": "k", "unique_for": -1},
        "unique_for -1 is not valid: more than 0 seconds, 100 years at most",
    ),
    (
        {"unique_key": "k", "unique_for": "1h"},
        "unique_for '1h' is not valid: more than 0 seconds, 100 years at most",
    ),
    (
        {"unique_key": "k", "unique_wait": 0},
        "unique_wait 0 is not valid: more than 0 seconds, 86400 at most",
    ),
    (
        {"unique_key": "k", "unique_wait": 1e12},
        "unique_wait 1000000000000.0 is not valid: more than 0 seconds, 86400 at most",
    ),
    ({"timeout": 0}, "timeout 0 is not valid: more than 0 seconds, 100 years at most"),
    ({"timeout": math.inf}, "timeout inf is not valid: more than 0 seconds, 100 years at most"),
    ({"timeout": math.nan}, "timeout nan is not valid: more than 0 seconds, 100 years at most"),
    ({"timeout": "5"}, "timeout '5' is not valid: more than 0 seconds, 100 years at most"),
    ({"timeout": True}, "timeout True is not valid: more than 0 seconds, 100 years at most"),
    ({"colour": "red"}, "unknown option 'colour': the options are connection, delay,"),
    ({"connection": "x"}, "connection=builtins.str cannot be used by enqueue: it takes a psycopg"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=str)
def test_an_option_that_is_not_valid(
    known: Known, database: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        known.add.using(**options).enqueue(1)
    assert message in str(refused.value)
    assert value(database, "select count(*) from pgqueue.all_jobs") == 0


CALLS: list[tuple[Callable[[Known], Any], type[Exception], str]] = [
    (lambda k: k.add.enqueue(), PayloadInvalid, PAYLOAD + "a: Field required"),
    (lambda k: k.add.enqueue(1, c=3), PayloadInvalid, "c: Extra inputs are not permitted"),
    (lambda k: k.add.enqueue("x"), PayloadInvalid, "a: Input should be a valid integer"),
    (lambda k: k.add.enqueue(1, 2, 3), PayloadInvalid, "takes 2 positional arguments, got 3"),
    (lambda k: k.add.enqueue(1, a=1), PayloadInvalid, "a: given twice"),
    (lambda k: k.anything.enqueue("\0"), PayloadInvalid, "holds a NUL character"),
    (lambda k: k.anything.enqueue("\ud800"), PayloadInvalid, "surrogates not allowed"),
    (lambda k: k.anything.enqueue(object()), PayloadInvalid, "Unable to serialize unknown type"),
    (lambda k: k.anything.enqueue(holding_itself()), PayloadInvalid, "Circular reference"),
    (lambda k: k.anything.enqueue("x" * 3_000_000), PayloadInvalid, "and 1,000,000 is the most"),
    (lambda k: k.add.enqueue_many([{"a": 1}, {"a": "x"}]), PayloadInvalid, "valid integer"),
    (lambda k: k.add.enqueue_many([1]), PayloadInvalid, "1 is no mapping: enqueue_many takes one"),
    (lambda k: k.add.enqueue_many([{1: 2}]), PayloadInvalid, "a mapping of argument names"),
    (lambda k: k.pgq.enqueue("ad", {}), TaskUnknown, "known tasks: add, anything"),
    (lambda k: k.pgq.enqueue(None, {}), TaskUnknown, "task 'None' is not known here"),
    (lambda k: k.pgq.enqueue("add", [1]), PayloadInvalid, "must be a mapping of argument names"),
    (lambda k: k.pgq.enqueue("add", {1: 2}), PayloadInvalid, "must be a mapping of argument"),
    (lambda k: k.pgq.get_job(10**9), JobNotFound, "job 1000000000 does not exist"),
    (lambda k: k.pgq.get_job("x"), ConfigError, "job id 'x' is not valid: a whole number from 1"),
    (lambda k: k.pgq.get_job(None), ConfigError, "job id None is not valid: a whole number from 1"),
    (lambda k: k.pgq.get_job(2**63), ConfigError, "job id 9223372036854775808 is not valid"),
    (lambda k: asyncio.run(k.pgq.aget_job("x")), ConfigError, "job id 'x' is not valid: a whole"),
    (lambda k: k.pgq.cancel("x"), ConfigError, "job id 'x' is not valid: a whole number"),
    (lambda k: k.pgq.task(name="a b")(len), ConfigError, "task name 'a b' is not valid: 1 to 200"),
    (lambda k: k.pgq.task(name="add")(len), ConfigError, "two tasks are named 'add'"),
    (lambda k: k.pgq.task(retry=3)(len), ConfigError, "retry 3 is not valid: use Retry(attempts"),
    (lambda k: k.pgq.task(5), ConfigError, "5 cannot be a task: use a function"),
    (lambda k: k.pgq.worker(concurrency=0), ConfigError, "concurrency 0 is not valid: 1 or more"),
    (lambda k: k.pgq.worker(queues="ab"), ConfigError, "queues 'ab' is not valid: a list of queue"),
    (lambda k: k.pgq.worker(queues=["a b"]), ConfigError, f"queue name 'a b' is not valid: {NAME}"),
    (lambda _: Retry(attempts=0), ValueError, "Retry(attempts=0): at least 1"),
    (lambda _: Retry(attempts=1.5), ValueError, "Retry(attempts=1.5): at least 1"),
    (lambda _: Retry(delays=[]), ValueError, "one or more waits of 0 s or longer"),
    (lambda _: Retry(delays=[math.nan]), ValueError, "one or more waits of 0 s or longer"),
    (lambda _: Retry(jitter=-1), ValueError, "numbers, none negative or endless"),
    (lambda _: Retry(attempts=10**30), ValueError, "at most 1,000,000"),
    (lambda _: Retry(delays="abc"), ValueError, "one or more waits of 0 s or longer"),
    (lambda _: Retry(only="OSError"), ValueError, "types of errors, such as (OSError,)"),
    (lambda _: Retry(never=(OSError, 3)), ValueError, "types of errors, such as (OSError,)"),
    (lambda _: Retry(decide=3), ValueError, "a function of (attempt, error)"),
    (lambda _: JobFilter(states="failed"), ConfigError, "several, such as ('failed',)"),
    (lambda _: JobFilter(tag="\ud800"), ConfigError, f"tag '\\ud800' is not valid: text {NUL}"),
    (lambda _: JobFilter(task=3), ConfigError, f"task 3 is not valid: text {NUL}"),
    (lambda _: JobFilter(since="24h"), ConfigError, "since '24h' is not valid: use an aware"),
    (lambda _: JobFilter(until=NAIVE), ConfigError, "until 2030-01-01T00:00:00 has no time zone"),
    (lambda k: k.pgq.list_jobs(limit="x"), ConfigError, "limit 'x' is not valid: 1 or more"),
    (lambda k: k.pgq.list_jobs({"task": "add"}), ConfigError, "is no filter: use JobFilter("),
    (lambda k: k.pgq.preview_retry("failed"), ConfigError, "'failed' is no filter: use JobFilter("),
    (lambda k: k.pgq.preview_replay(None), ConfigError, "None is no filter: use JobFilter("),
    (lambda k: k.pgq.retry_many("failed"), ConfigError, "'failed' is no filter: use JobFilter("),
    (lambda k: k.pgq.replay_many([1]), ConfigError, "[1] is no filter: use JobFilter("),
    (lambda k: k.pgq.cancel(1, by="me"), ConfigError, "by='me' is not valid: use Operator('me')"),
    (lambda k: k.pgq.delete(1, by="me"), ConfigError, "by='me' is not valid: use Operator('me')"),
    (lambda k: k.pgq.retry(1, by=""), ConfigError, "by='' is not valid: use Operator("),
    (lambda k: k.pgq.replay(1, by=5), ConfigError, "by=5 is not valid: use Operator("),
    (lambda k: k.pgq.pause("default", by="me"), ConfigError, "by='me' is not valid"),
    (lambda k: k.pgq.resume("default", by="me"), ConfigError, "by='me' is not valid"),
    (lambda k: k.pgq.set_quota("acme", 5, by="me"), ConfigError, "by='me' is not valid"),
    (lambda k: k.pgq.put_schedule("s", by="me"), ConfigError, "by='me' is not valid"),
    (lambda k: k.pgq.pause("default", reason=5), ConfigError, "the reason is not valid: text of"),
    (lambda k: k.pgq.pause("default", reason="\ud800"), ConfigError, "the reason is not valid"),
    (lambda _: Operator(5), ConfigError, "operator 5 is not valid: say who acts"),
    (lambda _: Operator("\ud800"), ConfigError, "operator '\\ud800' is not valid: say who acts"),
    (lambda _: Operator("me", "web"), ConfigError, "source 'web' is not valid: cli, api, ui, code"),
    (lambda _: Snooze("x"), TypeError, "Snooze('x') is not valid: seconds, as a number"),
    (lambda _: RetryAfter(None), TypeError, "RetryAfter(None) is not valid: seconds, as a number"),
]


@pytest.mark.parametrize("place", range(len(CALLS)))
def test_a_call_that_is_not_valid(known: Known, database: str, place: int) -> None:
    call, kind, message = CALLS[place]
    with pytest.raises(kind) as refused:
        call(known)
    assert message in str(refused.value)
    assert value(database, "select count(*) from pgqueue.all_jobs") == 0


def test_every_error_that_an_app_may_meet_stands_at_the_front_door() -> None:
    inner = {"SchemaTaken", "Verdict", "WorkerNotStarted"}
    ours = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.PgQueueError | errors.Verdict)
    }
    assert ours - inner <= set(pgqueue.__all__)


def test_one_type_of_error_may_stand_alone_in_a_retry_policy() -> None:
    policy = Retry(attempts=2, only=OSError, never=FileNotFoundError)
    waits = [wait_or_end(policy, 1, kind(), lambda: 0.0) for kind in (OSError, FileNotFoundError)]
    assert waits == [1.0, None]


def test_a_tag_that_is_given_twice_is_kept_once(known: Known) -> None:
    assert known.add.using(tags=["b", "a", "b"]).enqueue(1).tags == ("b", "a")


def test_the_sql_function_takes_as_many_and_as_long_tags_as_python(database: str) -> None:
    tags = "array(select rpad(n::text, 200, 'x') from generate_series(1, 100) as n)"
    assert value(database, f"select pgqueue.enqueue('t', tags => {tags})") == 1


SQL = [
    ("", "42883", "function pgqueue.enqueue_v1() does not exist"),
    ("task => null", "22023", "task name null is not valid: 1 to 200 letters, digits"),
    ("task => ''", "22023", "task name '' is not valid: 1 to 200 letters, digits"),
    ("task => 'a b'", "22023", "task name 'a b' is not valid: 1 to 200 letters, digits"),
    ("'t', payload => null", "22023", "payload must be a JSON object"),
    ("'t', payload => '[]'", "22023", "payload must be a JSON object"),
    ("'t', payload => '{a'", "22P02", "invalid input syntax for type json"),
    (
        "'t', payload => jsonb_build_object('x', repeat('x', 1000000))",
        "22023",
        "payload has 1000009 bytes, and 1000000 is the most",
    ),
    ("'t', queue => null", "22023", f"queue name null is not valid: {NAME}"),
    ("'t', queue => 'a b'", "22023", f"queue name 'a b' is not valid: {NAME}"),
    ("'t', priority => 10", "22023", "priority 10 is not valid: 0 to 9, higher first"),
    ("'t', priority => null", "22023", "priority null is not valid: 0 to 9, higher first"),
    ("'t', delay => '-1 s'", "22023", "delay -00:00:01 is not valid: 0 seconds or more"),
    ("'t', delay => '300000 years'", "22023", "is not valid: 0 seconds or more, 100 years"),
    ("'t', delay => '1 s', run_at => now()", "22023", "run_at and delay exclude each other"),
    ("'t', run_at => 'infinity'", "22023", "run_at infinity is not valid: from the year 1970"),
    ("'t', expires_at => 'infinity'", "22023", "expires_at infinity is not valid: from the year"),
    ("'t', max_attempts => 0", "22023", "max_attempts is not valid: 1 or more"),
    ("'t', timeout => 0", "22023", "timeout 0 is not valid: more than 0 seconds"),
    ("'t', timeout => 'NaN'", "22023", "timeout NaN is not valid: more than 0 seconds"),
    ("'t', tenant => ''", "22023", "tenant is not valid: 1 to 200 bytes"),
    ("'t', tags => null", "22023", "tags must be an array without null"),
    ("'t', tags => array[null]", "22023", "tags must be an array without null"),
    ("'t', tags => array[['a'], ['b']]", "22023", "tags must be an array of one dimension"),
    (
        "'t', tags => array(select n::text from generate_series(1, 101) as n)",
        "22023",
        "101 tags are too many: 100 at most",
    ),
    ("'t', tags => array['a', repeat('ä', 101)]", "22023", "a tag has 202 bytes, and 200 is the"),
    ("'t', headers => '[]'", "22023", "headers must be a JSON object"),
    ("'t', unique_key => ''", "22023", "unique_key is not valid: 1 to 2600 bytes"),
    ("'t', unique_key => repeat('k', 2601)", "22023", "unique_key is not valid: 1 to 2600 bytes"),
    ("'t', unique_key => 'k', unique_mode => 'x'", "22023", "unique_mode 'x' is not valid: skip"),
    ("'t', unique_for => '1 h'", "22023", "unique_for needs a unique_key"),
    ("'t', unique_key => 'k', unique_for => '-1 h'", "22023", "unique_for -01:00:00 is not valid"),
    ("'t', unique_key => 'k', unique_wait => '0'", "22023", "unique_wait 00:00:00 is not valid"),
    ("'t', colour => 'red'", "42883", "does not exist"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), SQL)
def test_a_call_of_the_sql_function_that_is_not_valid(
    database: str, arguments: str, code: str, message: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(f"select pgqueue.enqueue_v1({arguments})")
        assert refused.value.sqlstate == code
        assert message in (refused.value.diag.message_primary or "")
    assert value(database, "select count(*) from pgqueue.all_jobs") == 0


COMMANDS = [
    (("enqueue",), 2, "Missing argument"),
    (("enqueue", "ad"), 2, "task 'ad' is not known here; known tasks: add"),
    (("enqueue", "add", "{a"), 2, "the payload is not JSON"),
    (("enqueue", "add", "[1]"), 2, "the payload must be a JSON object"),
    (("enqueue", "add", "{}"), 2, PAYLOAD + "a: Field required"),
    (("enqueue", "add", '{"a": 1}', "--priority", "10"), 2, "priority 10 is not valid"),
    (("enqueue", "add", '{"a": 1}', "--priority", "x"), 2, "valid integer"),
    (("enqueue", "add", '{"a": 1}', "--delay", "nan"), 2, "delay nan is not valid"),
    (("enqueue", "add", '{"a": 1}', "--run-at", "soon"), 2, "--run-at 'soon' is not a time"),
    (("enqueue", "add", '{"a": 1}', "--run-at", "2030-01-01"), 2, "use ISO 8601 with zone"),
    (("enqueue", "add", '{"a": 1}', "--queue", "a b"), 2, "queue name 'a b' is not valid"),
    (("enqueue", "add", '{"a": 1}', "--unique-key", ""), 2, "unique_key '' is not valid"),
    (("enqueue", "add", '{"a": 1}', "--unique-key", "k", "--unique-mode", "x"), 2, "'x' is not"),
    (("enqueue", "add", '{"a": 1}', "--unique-for", "60"), 2, "unique_for needs a unique_key"),
    (("enqueue", "add", '{"a": 1}', "--expires-at", "soon"), 2, "--expires-at 'soon' is not a"),
    (("enqueue", "add", '{"a": 1}', "--timeout", "0"), 2, "timeout 0.0 is not valid: more than 0"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    code = "from pgqueue import PgQueue\npgq = PgQueue()\n@pgq.task\ndef add(a: int): ...\n"
    (folder / "bad_calls_app.py").write_text(code)
    return folder


@pytest.mark.parametrize(("arguments", "code", "message"), COMMANDS)
def test_a_command_that_is_not_valid(
    folder: Path, database: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    environment = {
        **os.environ,
        "PGQUEUE_APP": "bad_calls_app:pgq",
        "PGQUEUE_DATABASE_URL": database,
    }
    command = [Path(sys.executable).with_name("pgq"), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())
    assert value(database, "select count(*) from pgqueue.all_jobs") == 0
