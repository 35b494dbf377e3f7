-- Look at jobs, claim them, write how they ended.

-- A job by id, live or finished.
-- name: find_job
select
  id, task, queue, priority, state, payload, tenant, tags, unique_key, run_at, scheduled_at,
  attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, headers, expires_at,
  cancel_requested_at, crashes, suspect, workflow_id
from pgqueue.all_jobs
where id = %(id)s

-- One look at all that waits. Which lanes hold queued jobs, and in how many seconds the first of
-- each is due: a walk over the claim index that skips from lane to lane. Beside each, or alone:
-- whether somebody is admitted and not claimed, and in how many seconds a pass of admission may have
-- something to do, null when nothing waits for one; that reads a few index entries, once.
-- name: look_around
with recursive
  lanes as (
    (
      select queue, priority, run_at
      from pgqueue.jobs
      where state = 'queued'
      order by queue, priority, run_at
      limit 1
    )
    union all
    select next_lane.queue, next_lane.priority, next_lane.run_at
    from lanes
    cross join lateral (
      select queue, priority, run_at
      from pgqueue.jobs
      where state = 'queued'
        and (queue, priority) > (lanes.queue, lanes.priority)
      order by queue, priority, run_at
      limit 1
    ) as next_lane
  ),
  limited as materialized (
    select
      exists (
        select
        from pgqueue.jobs
        where admitted_seq >= %(lowest)s
          -- Not `state = 'queued'`: with the index of those all queued jobs would be read.
          and lease is null
      ) as admitted,
      case
        when exists (select from pgqueue.jobs where blocked_on collate "C" = '@new')
          or exists (
            select
            from pgqueue.queues
            where limited
              -- A scalar, not `exists`: as a join it would begin with all queued jobs.
              and (
                select true
                from pgqueue.jobs
                where jobs.state = 'queued'
                  and jobs.queue = queues.name
                  and jobs.admitted_seq is null
                order by jobs.priority, jobs.run_at, jobs.id
                limit 1
              )
          )
          then 0
        else least(
          (
            select extract(epoch from min(run_at) - pgqueue.clock())
            from pgqueue.jobs
            where blocked_on = '@run_at'
          ),
          case
            when exists (select from pgqueue.jobs where blocked_on collate "C" < '@run_at')
              or exists (select from pgqueue.jobs where blocked_on collate "C" > '@run_at')
              then 1
          end
        )
      end::double precision as wait
  )
select
  lanes.queue,
  lanes.priority,
  extract(epoch from lanes.run_at - pgqueue.clock())::double precision,
  limited.admitted,
  limited.wait
from limited
left join lanes on true

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
        -- Who has some is let in by an admission, and claimed by claim_limited.
        and jobs.limits = '{}'
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
        -- Of a queue with a limit only who is admitted runs.
        select queues.paused or queues.limited
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
      cancel_requested_at, crashes, suspect, workflow_id
  )
select
  (select count(*) from locked_jobs) as locked,
  claimed_jobs.id, claimed_jobs.task, claimed_jobs.queue, claimed_jobs.priority,
  claimed_jobs.payload::text, claimed_jobs.tenant, nullif(claimed_jobs.tags, '{}'),
  claimed_jobs.unique_key, claimed_jobs.run_at, claimed_jobs.scheduled_at, claimed_jobs.attempt,
  claimed_jobs.max_attempts, claimed_jobs.lease, claimed_jobs.worker_id, claimed_jobs.started_at,
  claimed_jobs.created_at, claimed_jobs.timeout, nullif(claimed_jobs.headers, '{}')::text,
  claimed_jobs.expires_at, claimed_jobs.cancel_requested_at, claimed_jobs.crashes,
  claimed_jobs.suspect, claimed_jobs.workflow_id
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
  state = pgqueue.ready_state(limits),
  blocked_on = pgqueue.ready_on(limits),
  admitted_seq = null,
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
