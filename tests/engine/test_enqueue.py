"""Enqueue: what lands in the table, and when it does not."""

from __future__ import annotations

from pgqueue import PgQueue


def test_an_enqueued_job_can_be_read_back(pgq: PgQueue) -> None:
    @pgq.task(queue="email", priority=8)
    def send_welcome(user_id: int) -> None: ...

    job = send_welcome.enqueue(user_id=1)

    assert pgq.get_job(job.id) == job
    assert (job.task, job.queue, job.priority, job.payload) == (
        "send-welcome",
        "email",
        8,
        {"user_id": 1},
    )
