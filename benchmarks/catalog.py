"""Which queues there are, how to tell that one is done, and about how fast each one is."""

from __future__ import annotations

from dataclasses import dataclass

STRANGER = "stranger"
"""The task that no worker knows (W7); it does not count as pending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One queue. `pending` is SQL, or a list of Redis commands whose sum is 0 when all is done.

    `pace` is about how many no-op jobs a second it does: runs are sized by it. `environment` is
    the folder under $BENCH_HOME with its packages; "project" is the environment of pgqueue itself.
    """

    name: str
    script: str
    package: str
    environment: str
    pending: str | tuple[str, ...]
    pace: int

    @property
    def is_node(self) -> bool:
        return self.script.endswith(".mjs")

    @property
    def is_on_postgres(self) -> bool:
        return isinstance(self.pending, str)


_BARE = "select count(*) from j"

_PEERS = (
    Peer(
        name="pgqueue",
        script="pgqueue_peer.py",
        package="pgqueue",
        environment="project",
        pending=f"select count(*) from pgqueue.jobs where task <> '{STRANGER}'",
        pace=25_000,
    ),
    Peer(
        name="bare-psycopg",
        script="bare_psycopg_peer.py",
        package="psycopg",
        environment="project",
        pending=_BARE,
        pace=25_000,
    ),
    Peer(
        name="bare-asyncpg",
        script="bare_asyncpg_peer.py",
        package="asyncpg",
        environment="venv-pgqueuer",
        pending=_BARE,
        pace=25_000,
    ),
    Peer(
        name="procrastinate",
        script="procrastinate_peer.py",
        package="procrastinate",
        environment="venv-procrastinate",
        pending="select count(*) from procrastinate_jobs where status in ('todo', 'doing')",
        pace=500,
    ),
    Peer(
        name="pgqueuer",
        script="pgqueuer_peer.py",
        package="pgqueuer",
        environment="venv-pgqueuer",
        pending=f"select count(*) from pgqueuer where entrypoint <> '{STRANGER}'",
        pace=5_000,
    ),
    Peer(
        name="awa",
        script="awa_peer.py",
        package="awa-pg",
        environment="venv-awa",
        # Not its view awa.jobs: counting 20,000 rows of that took 100 s.
        pending=(
            "select (select count(*) from awa.ready_entries)"
            " - (select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches)"
            " - (select count(*) from awa.done_entries)"
        ),
        pace=3_000,
    ),
    Peer(
        name="chancy",
        script="chancy_peer.py",
        package="chancy",
        environment="venv-chancy",
        pending="select count(*) from chancy_jobs where state not in ('succeeded', 'failed')",
        pace=600,
    ),
    Peer(
        name="oban",
        script="oban_peer.py",
        package="oban",
        environment="venv-oban",
        pending=(
            "select count(*) from oban_jobs"
            " where state in ('available', 'scheduled', 'executing', 'retryable')"
        ),
        pace=800,
    ),
    Peer(
        name="graphile-worker",
        script="graphile_peer.mjs",
        package="graphile-worker",
        environment="node",
        pending=(
            "select count(*) from graphile_worker._private_jobs where task_id not in"
            f" (select id from graphile_worker._private_tasks where identifier = '{STRANGER}')"
        ),
        pace=12_000,
    ),
    Peer(
        name="pg-boss",
        script="pgboss_peer.mjs",
        package="pg-boss",
        environment="node",
        pending=(
            "select count(*) from pgboss.job"
            " where name in ('noop', 'sleep100') and state < 'completed'"
        ),
        pace=8_000,
    ),
    Peer(
        name="celery",
        script="celery_peer.py",
        package="celery",
        environment="venv-celery",
        pending=("llen celery", "hlen unacked"),
        pace=700,
    ),
    Peer(
        name="rq",
        script="rq_peer.py",
        package="rq",
        environment="venv-rq",
        pending=("llen rq:queue:q", "zcard rq:wip:q"),
        pace=300,
    ),
    Peer(
        name="dramatiq",
        script="dramatiq_peer.py",
        package="dramatiq",
        environment="venv-dramatiq",
        pending=("llen dramatiq:q", "hlen dramatiq:q.msgs"),
        pace=2_000,
    ),
    Peer(
        name="arq",
        script="arq_peer.py",
        package="arq",
        environment="venv-arq",
        pending=("zcard arq:queue",),
        pace=1_000,
    ),
    Peer(
        name="bullmq",
        script="bullmq_peer.mjs",
        package="bullmq",
        environment="node",
        pending=("llen bull:q:wait", "llen bull:q:active", "zcard bull:q:prioritized"),
        pace=7_000,
    ),
)

PEERS = {peer.name: peer for peer in _PEERS}
