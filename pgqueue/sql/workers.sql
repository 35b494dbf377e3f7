-- Who lives, and what was held by those who do not.

-- name: register_worker
insert into pgqueue.workers (host, pid, version, queues, concurrency, tasks)
values (%(host)s, %(pid)s, %(version)s, %(queues)s, %(concurrency)s, %(tasks)s)
returning id

-- One beat; no row comes back when this worker was declared dead.
-- name: beat
update pgqueue.workers
set
  heartbeat_at = pgqueue.clock_now(),
  started_jobs = %(started_jobs)s::bigint[]
where id = %(worker_id)s
returning id

-- Forgets a worker that holds no job any more.
-- name: forget_worker
delete from pgqueue.workers
where id = %(worker_id)s
  and not exists (
    select
    from pgqueue.jobs
    where jobs.state = 'running'
      and jobs.worker_id = workers.id
  )
returning id

-- The time before which a claim must have begun to be judged by find_strays.
-- name: now
select pgqueue.clock_now()

-- Hands back, without costing an attempt, what the database believes this worker runs and the
-- worker does not know of: the reply to its claim was lost. Claims that are under way or younger
-- than `before` are left alone; 500 a pass.
-- name: hand_back_strays
with stray_jobs as materialized (
  select ctid as tid
  from pgqueue.jobs
  where worker_id = %(worker_id)s
    and state = 'running'
    and started_at < %(before)s
    and lease <> all(%(in_flight)s::bigint[])
    and id <> all(%(held)s::bigint[])
  limit 500
  for update skip locked
)
update pgqueue.jobs
set
  state = pgqueue.ready_state(limits),
  blocked_on = pgqueue.ready_on(limits),
  admitted_seq = null,
  lease = null,
  worker_id = null,
  run_at = greatest(run_at, pgqueue.clock_now()),
  attempt = greatest(0, attempt - 1)
where ctid = any(array(select tid from stray_jobs))
returning id

-- Workers that hold jobs, or a row, and are dead: no row any more, or a heartbeat older than the
-- timeout. Time in which the database itself was away counts for nobody's silence.
-- name: find_dead_workers
with recursive
  holders as (
    (
      select worker_id
      from pgqueue.jobs
      where state = 'running'
      order by worker_id
      limit 1
    )
    union all
    select next_holder.worker_id
    from holders
    cross join lateral (
      select worker_id
      from pgqueue.jobs
      where state = 'running'
        and worker_id > holders.worker_id
      order by worker_id
      limit 1
    ) as next_holder
  ),
  candidates as (
    select worker_id from holders
    union
    select id from pgqueue.workers
  )
select candidates.worker_id
from candidates
left join pgqueue.workers on workers.id = candidates.worker_id
where (
    workers.id is null
    or workers.heartbeat_at < pgqueue.clock() - %(timeout)s * interval '1 second'
  )
  and pg_postmaster_start_time() < pgqueue.clock() - %(timeout)s * interval '1 second'

-- Takes back up to 500 jobs of a dead worker. An attempt is charged only to jobs that may have
-- started: one that the last heartbeat shows as claimed but not started gives its try back. A crash
-- never eats the last try: max_attempts grows with it, and it is for the quarantine to end a job
-- that keeps killing its workers. Not ordered: by id the planner would walk the primary key.
-- name: rescue_jobs
with
  held_jobs as materialized (
    select
      jobs.ctid as tid,
      -- Null, and so charged, when the worker left no row to tell.
      jobs.started_at < workers.heartbeat_at
        and jobs.id <> all(workers.started_jobs) as waited
    from pgqueue.jobs
    left join pgqueue.workers on workers.id = jobs.worker_id
    where jobs.state = 'running'
      and jobs.worker_id = %(worker_id)s
      and (
        workers.id is null
        or workers.heartbeat_at < pgqueue.clock() - %(timeout)s * interval '1 second'
      )
    limit 500
    for update of jobs skip locked
  )
update pgqueue.jobs
set
  state = pgqueue.ready_state(limits),
  blocked_on = pgqueue.ready_on(limits),
  admitted_seq = null,
  lease = null,
  worker_id = null,
  run_at = greatest(run_at, pgqueue.clock_now()),
  attempt = case
    when held_jobs.waited then greatest(0, attempt - 1)
    else attempt
  end,
  max_attempts = case
    when held_jobs.waited then max_attempts
    else greatest(max_attempts, attempt + 1)
  end,
  -- A worker holds one suspect at a time, so its death is charged to that one.
  crashes = case
    when suspect and not coalesce(held_jobs.waited, false) then crashes + 1
    else crashes
  end,
  suspect = suspect or not coalesce(held_jobs.waited, false),
  errors = case
    when held_jobs.waited then errors
    else (
      case when jsonb_array_length(errors) >= 20 then errors - 0 else errors end
    ) || jsonb_build_object(
      'attempt', attempt,
      'at', pgqueue.clock_now(),
      'reason', 'worker-died',
      'message', 'worker ' || worker_id || ' stopped beating while it held this job'
    )
  end
from held_jobs
where jobs.ctid = held_jobs.tid
returning jobs.id

-- A row comes back while a new version may be on its way: some worker has started lately.
-- name: find_rollout
select id
from pgqueue.workers
where started_at > pgqueue.clock() - %(seconds)s * interval '1 second'
limit 1
