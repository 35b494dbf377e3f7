-- What operators look at; nothing here writes.

-- Jobs, newest first, live and finished; `before` is the last id of the page before. Each side has
-- its own limit, so that a page costs a page and not a sort of everything.
-- name: list_jobs
with span as materialized (
  -- Where the ids of a workflow's jobs lie: those of others are not read.
  select
    case when %(workflow_id)s::bigint is null then 0 else min(job_id) end as first_id,
    case when %(workflow_id)s::bigint is null then 9223372036854775807 else max(job_id) end
      as last_id
  from pgqueue.workflow_nodes
  where workflow_id = %(workflow_id)s::bigint
)
select
  id, task, queue, priority, state, status, payload, tenant, tags, unique_key, limits, blocked_on,
  run_at, scheduled_at, attempt, max_attempts, lease, worker_id, started_at, created_at, timeout,
  errors, progress, headers, workflow_id, cancel_requested_at, finished_at, result, expires_at,
  crashes, suspect
from (
  (
    select
      id, task, queue, priority, state, status, payload, tenant, tags, unique_key, limits,
      blocked_on, run_at, scheduled_at, attempt, max_attempts, lease, worker_id, started_at,
      created_at, timeout, errors, progress, headers, workflow_id, cancel_requested_at,
      finished_at, result, expires_at, crashes, suspect
    from pgqueue.all_jobs
    where finished_at is null
      and (%(states)s::text[] is null or state = any(%(states)s))
      and (%(status)s::text is null or status = %(status)s)
      and (%(task)s::text is null or task = %(task)s)
      and (%(queue)s::text is null or queue = %(queue)s)
      and (%(tenant)s::text is null or tenant = %(tenant)s)
      and (%(tag)s::text is null or %(tag)s = any(tags))
      and (%(reason)s::text is null or errors -> -1 ->> 'reason' = %(reason)s)
      and (%(workflow_id)s::bigint is null or workflow_id = %(workflow_id)s)
      and id between (select first_id from span) and (select last_id from span)
      and (%(since)s::timestamptz is null or created_at >= %(since)s)
      and (%(until)s::timestamptz is null or created_at < %(until)s)
      and (%(before)s::bigint is null or id < %(before)s)
    order by id desc
    limit %(n)s
  )
  union all
  (
    select
      id, task, queue, priority, state, state as status, payload, tenant, tags, unique_key,
      limits, null as blocked_on, run_at, scheduled_at, attempt, max_attempts, lease, worker_id,
      started_at, created_at, timeout, errors, progress, headers, workflow_id,
      cancel_requested_at, finished_at, result, expires_at, crashes, suspect
    from pgqueue.finished_jobs
    where (%(states)s::text[] is null or state = any(%(states)s))
      and (%(status)s::text is null or state = %(status)s)
      and (%(task)s::text is null or task = %(task)s)
      and (%(queue)s::text is null or queue = %(queue)s)
      and (%(tenant)s::text is null or tenant = %(tenant)s)
      and (%(tag)s::text is null or %(tag)s = any(tags))
      and (%(reason)s::text is null or errors -> -1 ->> 'reason' = %(reason)s)
      and (%(workflow_id)s::bigint is null or workflow_id = %(workflow_id)s)
      and id between (select first_id from span) and (select last_id from span)
      and (%(since)s::timestamptz is null or finished_at >= %(since)s)
      and (%(until)s::timestamptz is null or finished_at < %(until)s)
      and (%(before)s::bigint is null or id < %(before)s)
    order by id desc
    limit %(n)s
  )
) as found
order by id desc
limit %(n)s

-- One job with every column, live or finished.
-- name: show_job
select
  id, task, queue, priority, state, status, payload, tenant, tags, unique_key, limits, blocked_on,
  run_at, scheduled_at, attempt, max_attempts, lease, worker_id, started_at, created_at, timeout,
  errors, progress, headers, workflow_id, cancel_requested_at, finished_at, result, expires_at,
  crashes, suspect
from pgqueue.all_jobs
where id = %(id)s

-- The last lines of a job's log, in order.
-- name: find_logs
select attempt, at, level, message
from (
  select id, attempt, at, level, message
  from pgqueue.job_logs
  where job_id = %(id)s
  order by id desc
  limit %(n)s
) as last_lines
order by id

-- Everything about a live job that may keep it from running, but for the other jobs.
-- name: explain_job
select
  jobs.task, jobs.queue, jobs.priority, jobs.state, jobs.run_at, jobs.attempt, jobs.max_attempts,
  jobs.worker_id, jobs.started_at, jobs.cancel_requested_at, jobs.expires_at, jobs.crashes,
  jobs.suspect, jobs.blocked_on, jobs.workflow_id,
  pgqueue.clock() as now,
  coalesce(queues.paused, false) as paused,
  queues.paused_at, queues.paused_by, queues.pause_reason,
  workers.host, workers.pid, workers.heartbeat_at,
  coalesce(
    workers.heartbeat_at > pgqueue.clock() - %(timeout)s * interval '1 second',
    false
  ) as worker_lives,
  -- True, too, when no beat has told since the claim.
  jobs.started_at >= workers.heartbeat_at or jobs.id = any(workers.started_jobs) as may_have_started
from pgqueue.jobs
left join pgqueue.queues on queues.name = jobs.queue
left join pgqueue.workers on workers.id = jobs.worker_id
where jobs.id = %(id)s

-- How a finished job ended, and who holds its unique key now.
-- name: explain_ending
select
  ended.state, ended.finished_at, ended.attempt, ended.errors -> -1 ->> 'reason' as reason,
  ended.errors -> -1 ->> 'message' as message, ended.unique_key, ended.crashes,
  live.id as holder
from pgqueue.finished_jobs as ended
left join pgqueue.jobs as live on live.unique_key = ended.unique_key
where ended.id = %(id)s
order by ended.finished_at desc
limit 1

-- The live workers: how many, how many of them take from the queue and know the task, with how many
-- slots, and how many of those are busy.
-- name: count_workers
with live_workers as (
  select
    id, concurrency,
    cardinality(queues) = 0 or %(queue)s::text = any(queues) as listens,
    %(task)s::text = any(tasks) as knows
  from pgqueue.workers
  where heartbeat_at > pgqueue.clock() - %(timeout)s * interval '1 second'
)
select
  count(*) as live,
  count(*) filter (where listens) as listening,
  count(*) filter (where listens and knows) as knowing,
  coalesce(sum(concurrency) filter (where listens and knows), 0)::bigint as slots,
  (
    select count(*)
    from pgqueue.jobs
    where jobs.state = 'running'
      and jobs.worker_id = any(
        array(select id from live_workers where listens and knows)
      )
  ) as busy
from live_workers

-- How many due jobs of its queue stand before a job: in its own lane, and in lanes of a higher
-- priority. Counts 10,000 of each and no further.
-- name: count_before
select
  (
    select count(*)
    from (
      select
      from pgqueue.jobs
      where state = 'queued'
        and queue = %(queue)s
        and priority = %(priority)s::smallint
        and run_at <= pgqueue.clock()
        and (run_at, id) < (%(run_at)s::timestamptz, %(id)s::bigint)
      limit 10000
    ) as earlier
  ) as in_lane,
  (
    select count(*)
    from (
      select
      from pgqueue.jobs
      where state = 'queued'
        and queue = %(queue)s
        and priority > %(priority)s::smallint
        and run_at <= pgqueue.clock()
      limit 10000
    ) as higher
  ) as above

-- name: list_queues
select
  queue, paused, queued, scheduled, retrying, blocked, waiting, running, oldest_due, paused_at,
  paused_by, pause_reason
from pgqueue.queue_stats
order by queue

-- name: list_task_stats
select task, completed, failed, cancelled, average_time, last_finished_at
from pgqueue.task_stats
order by task

-- name: list_workers
select
  id, host, pid, version, queues, concurrency, started_at, heartbeat_at, silent_for, alive, running
from pgqueue.worker_status
order by id

-- name: list_next_runs
select id, name, task, enabled, next_run_at, last_run_at, last_error
from pgqueue.schedules
order by next_run_at, name
