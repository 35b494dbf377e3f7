-- One job at a time and in bulk: insert, claim, finish, requeue.

-- Inserts one job that no unique key and no quota concerns.
-- name: insert_job
insert into pgqueue.jobs (
  task, queue, payload, priority, run_at, scheduled_at, tags, max_attempts, timeout, expires_at,
  headers
)
select
  %(task)s,
  %(queue)s,
  %(payload)s::jsonb,
  %(priority)s,
  -- Never in the past: a claim's bound may have gone by that place (scheduled_at keeps the wish).
  greatest(asked.run_at, pgqueue.clock_now()),
  asked.run_at,
  %(tags)s::text[],
  %(max_attempts)s,
  %(timeout)s::double precision,
  %(expires_at)s::timestamptz,
  %(headers)s::jsonb
from (
  select coalesce(
    %(run_at)s::timestamptz,
    pgqueue.clock_now() + %(delay)s * interval '1 second'
  ) as run_at
) as asked
returning id, state, run_at, scheduled_at, created_at

-- Enqueues one job by all the rules: unique key, period, quota (see the function).
-- name: enqueue_job
select job_id, is_new
from pgqueue.enqueue_v1(
  task => %(task)s,
  payload => %(payload)s::jsonb,
  queue => %(queue)s,
  priority => %(priority)s,
  run_at => %(run_at)s::timestamptz,
  delay => %(delay)s::double precision * interval '1 second',
  tenant => %(tenant)s,
  tags => %(tags)s::text[],
  unique_key => %(unique_key)s,
  unique_mode => %(unique_mode)s,
  unique_for => %(unique_for)s::double precision * interval '1 second',
  max_attempts => %(max_attempts)s,
  timeout => %(timeout)s::double precision,
  expires_at => %(expires_at)s::timestamptz,
  headers => %(headers)s::jsonb,
  unique_wait => %(unique_wait)s * interval '1 second'
)

-- The same for many, in the order of their unique keys: two callers with the same keys wait for
-- each other instead of deadlocking.
-- name: enqueue_jobs
select asked.place, made.job_id
from (
  select *
  from unnest(
    %(tasks)s::text[],
    %(queues)s::text[],
    %(payloads)s::text[],
    %(priorities)s::integer[],
    %(run_ats)s::timestamptz[],
    %(delays)s::double precision[],
    %(tenants)s::text[],
    %(tags)s::text[],
    %(unique_keys)s::text[],
    %(unique_modes)s::text[],
    %(unique_fors)s::double precision[],
    %(max_attempts)s::integer[],
    %(timeouts)s::double precision[],
    %(expires_ats)s::timestamptz[],
    %(headers)s::text[],
    %(unique_waits)s::double precision[]
  ) with ordinality as asked (
    task, queue, payload, priority, run_at, delay, tenant, tags, unique_key, unique_mode,
    unique_for, max_attempts, timeout, expires_at, headers, unique_wait, place
  )
  order by unique_key, place
) as asked
cross join lateral pgqueue.enqueue_v1(
  task => asked.task,
  payload => asked.payload::jsonb,
  queue => asked.queue,
  priority => asked.priority,
  run_at => asked.run_at,
  delay => asked.delay * interval '1 second',
  tenant => asked.tenant,
  tags => asked.tags::text[],
  unique_key => asked.unique_key,
  unique_mode => asked.unique_mode,
  unique_for => asked.unique_for * interval '1 second',
  max_attempts => asked.max_attempts,
  timeout => asked.timeout,
  expires_at => asked.expires_at,
  headers => asked.headers::jsonb,
  unique_wait => asked.unique_wait * interval '1 second'
) as made
order by asked.place

-- A job by id, live or finished.
-- name: find_job
select
  id, task, queue, priority, state, payload, tenant, tags, unique_key, run_at, scheduled_at,
  attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, headers, expires_at,
  cancel_requested_at, crashes, suspect
from pgqueue.all_jobs
where id = %(id)s

-- Inserts many jobs that no unique key and no quota concerns; returns their ids in the order given.
-- name: insert_jobs
with
  new_jobs as materialized (
    select
      nextval(pg_get_serial_sequence('pgqueue.jobs', 'id')) as id,
      asked.*
    from unnest(
      %(tasks)s::text[],
      %(queues)s::text[],
      %(payloads)s::text[],
      %(priorities)s::smallint[],
      %(run_ats)s::timestamptz[],
      %(delays)s::double precision[],
      %(tags)s::text[],
      %(max_attempts)s::integer[],
      %(timeouts)s::double precision[],
      %(expires_ats)s::timestamptz[],
      %(headers)s::text[]
    ) with ordinality as asked (
      task, queue, payload, priority, run_at, delay, tags, max_attempts, timeout, expires_at,
      headers, place
    )
  ),
  inserted_jobs as (
    insert into pgqueue.jobs (
      id, task, queue, payload, priority, run_at, scheduled_at, tags, max_attempts, timeout,
      expires_at, headers
    )
    select
      id,
      task,
      queue,
      payload::jsonb,
      priority,
      greatest(
        coalesce(run_at, pgqueue.clock_now() + delay * interval '1 second'),
        pgqueue.clock_now()
      ),
      coalesce(run_at, pgqueue.clock_now() + delay * interval '1 second'),
      tags::text[],
      max_attempts,
      timeout,
      expires_at,
      headers::jsonb
    from new_jobs
    order by place
  )
select id
from new_jobs
order by place

-- Ids for `n` jobs that are copied in next, and when they are due. As a range where nobody else took
-- one in between, which is the rule.
-- name: take_ids
select
  min(id) as first_id,
  case when max(id) - min(id) + 1 <> count(*) then array_agg(id order by id) end as ids,
  coalesce(
    %(run_at)s::timestamptz,
    pgqueue.clock_now() + %(delay)s * interval '1 second'
  ) as scheduled_at,
  pgqueue.clock_now() as now
from (
  select nextval(pg_get_serial_sequence('pgqueue.jobs', 'id')) as id
  from generate_series(1, %(n)s)
) as taken

-- Inserts many jobs that no unique key and no quota concerns, three times as fast as insert_jobs.
-- name: copy_jobs
copy pgqueue.jobs (
  id, task, queue, payload, priority, run_at, scheduled_at, tags, max_attempts, timeout,
  expires_at, headers
)
from stdin

-- Which lanes hold queued jobs: a walk over the claim index that skips from lane to lane.
-- name: find_lanes
with recursive lanes as (
  (
    select queue, priority
    from pgqueue.jobs
    where state = 'queued'
    order by queue, priority
    limit 1
  )
  union all
  select next_lane.queue, next_lane.priority
  from lanes
  cross join lateral (
    select queue, priority
    from pgqueue.jobs
    where state = 'queued'
      and (queue, priority) > (lanes.queue, lanes.priority)
    order by queue, priority
    limit 1
  ) as next_lane
)
select queue, priority
from lanes

-- Takes up to `n` due jobs from the lanes, in the order given, each lane from its bound on.
-- The first column is how many rows were locked: fewer claimed than locked means that some were
-- edited between snapshot and lock (the TID scan does not see the new version), so claim again.
-- By ctid and through an array: a join here can be turned round by stale statistics. What is empty
-- for most jobs comes as null, which costs the reader nothing.
-- name: claim_jobs
with
  locked_jobs as materialized (
    select due_jobs.tid
    from unnest(
      %(queues)s::text[],
      %(priorities)s::smallint[],
      %(bound_ats)s::timestamptz[],
      %(bound_ids)s::bigint[]
    ) as lane (queue, priority, bound_at, bound_id)
    cross join lateral (
      select jobs.ctid as tid
      from pgqueue.jobs
      where jobs.state = 'queued'
        and jobs.queue = lane.queue
        and jobs.priority = lane.priority
        and jobs.run_at <= pgqueue.clock()
        -- A bound ahead of the clock is from before it stepped back, and would hide new jobs.
        and (jobs.run_at, jobs.id) > (
          case when lane.bound_at > pgqueue.clock() then '-infinity' else lane.bound_at end,
          lane.bound_id
        )
        and jobs.task = any(%(tasks)s::text[])
        -- A worker holds one suspect at a time: if it dies, there is one to blame.
        and (not jobs.suspect or %(suspects)s)
      order by jobs.run_at, jobs.id
      limit %(n)s
      for update skip locked
    ) as due_jobs
    -- A scalar, not `not exists`: as a hash join that would lose the order of the lanes, and the
    -- lowest priority starved (seen).
    where not coalesce(
      (
        select queues.paused
        from pgqueue.queues
        where queues.name = lane.queue
      ),
      false
    )
    limit %(n)s
  ),
  claimed_jobs as (
    update pgqueue.jobs
    set
      state = 'running',
      attempt = attempt + 1,
      lease = %(lease)s,
      worker_id = %(worker_id)s,
      started_at = pgqueue.clock_now()
    where ctid = any(array(select tid from locked_jobs))
    returning
      id, task, queue, priority, payload, tenant, tags, unique_key, run_at, scheduled_at, attempt,
      max_attempts, lease, worker_id, started_at, created_at, timeout, headers, expires_at,
      cancel_requested_at, crashes, suspect
  )
select
  (select count(*) from locked_jobs) as locked,
  claimed_jobs.id, claimed_jobs.task, claimed_jobs.queue, claimed_jobs.priority,
  claimed_jobs.payload::text, claimed_jobs.tenant, nullif(claimed_jobs.tags, '{}'),
  claimed_jobs.unique_key, claimed_jobs.run_at, claimed_jobs.scheduled_at, claimed_jobs.attempt,
  claimed_jobs.max_attempts, claimed_jobs.lease, claimed_jobs.worker_id, claimed_jobs.started_at,
  claimed_jobs.created_at, claimed_jobs.timeout, nullif(claimed_jobs.headers, '{}')::text,
  claimed_jobs.expires_at, claimed_jobs.cancel_requested_at, claimed_jobs.crashes,
  claimed_jobs.suspect
from (values (true)) as always (one)
left join claimed_jobs on true

-- Moves ended jobs to finished_jobs. Matches (id, lease) and nothing else: `state = 'running'`
-- would let the planner walk the dead entries of the running index. The lateral with its limit
-- keeps one index probe per job whatever the statistics say. Never waits for a row, so that a
-- stranger's open transaction holds up one job and not the batch, and two batches cannot deadlock;
-- who is left over is looked for by find_leases. Errors keep the last 20. Returns the ids written.
-- name: finish_jobs
with
  endings as materialized (
    select held.tid, ending.id, ending.state, ending.result, ending.error
    from unnest(
      %(ids)s::bigint[],
      %(leases)s::bigint[],
      %(states)s::text[],
      %(results)s::text[],
      %(errors)s::text[]
    ) as ending (id, lease, state, result, error)
    cross join lateral (
      select jobs.ctid as tid
      from pgqueue.jobs
      where jobs.id = ending.id
        and jobs.lease = ending.lease
      limit 1
      for update skip locked
    ) as held
  ),
  ended_jobs as (
    delete from pgqueue.jobs
    where ctid = any(array(select tid from endings))
    returning
      id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
      attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress,
      headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect
  )
insert into pgqueue.finished_jobs (
  id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
  attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress,
  headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect, state, result,
  finished_at
)
select
  ended_jobs.id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at,
  scheduled_at, attempt, max_attempts, lease, worker_id, started_at, created_at, timeout,
  case
    when endings.error is null then errors
    else (
      case when jsonb_array_length(errors) >= 20 then errors - 0 else errors end
    ) || (endings.error::jsonb || jsonb_build_object('at', pgqueue.clock_now()))
  end,
  progress, headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect,
  endings.state,
  endings.result::jsonb,
  pgqueue.clock_now()
from ended_jobs
join endings on endings.id = ended_jobs.id
returning id

-- Puts running jobs back into their queue: retry, snooze, hand-back. `uncounted` gives tries back.
-- Errors keep the last 20. Returns the ids written; waits for no row, as finish_jobs.
-- name: requeue_jobs
with requeued as materialized (
  select held.tid, again.delay, again.uncounted, again.error
  from unnest(
    %(ids)s::bigint[],
    %(leases)s::bigint[],
    %(delays)s::double precision[],
    %(uncounted)s::integer[],
    %(errors)s::text[]
  ) as again (id, lease, delay, uncounted, error)
  cross join lateral (
    select jobs.ctid as tid
    from pgqueue.jobs
    where jobs.id = again.id
      and jobs.lease = again.lease
    limit 1
    for update skip locked
  ) as held
)
update pgqueue.jobs
set
  state = 'queued',
  lease = null,
  worker_id = null,
  -- Who is to be cancelled waits for nothing: the next claim ends it.
  run_at = greatest(
    run_at,
    pgqueue.clock_now()
      + case when cancel_requested_at is null then requeued.delay else 0 end * interval '1 second'
  ),
  attempt = greatest(0, attempt - requeued.uncounted),
  errors = case
    when requeued.error is null then errors
    else (
      case when jsonb_array_length(errors) >= 20 then errors - 0 else errors end
    ) || (requeued.error::jsonb || jsonb_build_object('at', pgqueue.clock_now()))
  end
from requeued
where jobs.ctid = requeued.tid
returning jobs.id

-- Which of these leases still hold: what a batch left over is locked or was edited just then, and
-- is to be written again. The others were taken, for ever: a lease never comes back.
-- name: find_leases
select jobs.id
from unnest(%(ids)s::bigint[], %(leases)s::bigint[]) as asked (id, lease)
join pgqueue.jobs on jobs.id = asked.id and jobs.lease = asked.lease

-- Proves a lease inside a handler's transaction and holds the row until its commit; the second
-- column shows whether it is still the transaction that the handler was given.
-- name: lock_lease
select id, transaction_timestamp()
from pgqueue.jobs
where id = %(id)s
  and lease = %(lease)s
for update

-- Makes partitions of finished_jobs that are missing; returns how many.
-- name: make_partitions
select pgqueue.make_partitions()

-- Whether a job is live. One look at the small table while it is, the partitions after.
-- name: find_live_state
select state
from pgqueue.jobs
where id = %(id)s

-- How a job ended; the bound on finished_at leaves older partitions out.
-- name: find_ending
select state, result, errors
from pgqueue.finished_jobs
where id = %(id)s
  and finished_at >= %(created_at)s
order by finished_at desc
limit 1
