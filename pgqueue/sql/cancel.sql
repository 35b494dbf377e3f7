-- Stopping jobs, waiting or running.

-- Cancels jobs: one that waits moves to finished_jobs, a running one is marked for its worker.
-- Returns what became of each; an id that is missing was edited in between (ask again), has ended,
-- or never was. At most 500 ids a call.
-- name: cancel_jobs
with
  targets as materialized (
    select ctid as tid, id, state
    from pgqueue.jobs
    where id = any(%(ids)s::bigint[])
    order by id
    for update
  ),
  marked_jobs as (
    update pgqueue.jobs
    set cancel_requested_at = coalesce(cancel_requested_at, pgqueue.clock_now())
    where ctid = any(array(select tid from targets where state = 'running'))
    returning id
  ),
  ended_jobs as (
    delete from pgqueue.jobs
    where ctid = any(array(select tid from targets where state <> 'running'))
    returning
      id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
      attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress,
      headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect
  ),
  cancelled_jobs as (
    insert into pgqueue.finished_jobs (
      id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
      attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress,
      headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect, state, finished_at
    )
    select
      id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
      attempt, max_attempts, lease, worker_id, started_at, created_at, timeout,
      errors || jsonb_build_object(
        'attempt', attempt,
        'at', pgqueue.clock_now(),
        'reason', %(reason)s::text,
        'message', %(message)s::text
      ),
      progress, headers, workflow_id, coalesce(cancel_requested_at, pgqueue.clock_now()),
      expires_at, crashes, suspect, 'cancelled', pgqueue.clock_now()
    from ended_jobs
    returning id
  ),
  -- Expiry has no operator and leaves no line here.
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s::text,
      %(source)s::text,
      'cancel',
      case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end,
      jsonb_build_object('ids', jsonb_agg(id order by id))
    from (
      select id
      from marked_jobs
      union all
      select id
      from cancelled_jobs
    ) as met
    where %(who)s::text is not null
    having count(*) > 0
  )
select id, 'marked' as became
from marked_jobs
union all
select id, 'cancelled' as became
from cancelled_jobs

-- Which of this worker's running jobs somebody wants stopped.
-- name: find_cancel_marks
select id
from pgqueue.jobs
where id = any(%(ids)s::bigint[])
  and lease = any(%(leases)s::bigint[])
  and cancel_requested_at is not null

-- Ids of waiting jobs whose time is over.
-- name: find_expired
select id
from pgqueue.jobs
where state <> 'running'
  and expires_at <= pgqueue.clock()
order by expires_at
limit 500
-- One that somebody holds comes later, and the others need not wait for it.
for update skip locked

-- Ids of limited jobs that came back marked: nobody claims them, for they are not let in.
-- name: find_marked
select id
from pgqueue.jobs
where blocked_on collate "C" = '@cancel'
limit 500
for update skip locked
