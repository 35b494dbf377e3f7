-- What operators do to jobs and queues. Each statement writes its line of audit_log itself, so that
-- the deed and the record of it are one commit.

-- How long a retry waits for a unique key that an open transaction holds.
-- name: wait_for_keys
select set_config('lock_timeout', '1s', true)

-- How long a command waits for rows that somebody's open transaction holds.
-- name: wait_for_rows
select set_config('lock_timeout', %(wait)s, true)

-- Which jobs somebody's open transaction holds.
-- name: find_held
with free_jobs as materialized (
  select id
  from pgqueue.jobs
  where id = any(%(ids)s::bigint[])
  for update skip locked
)
select id
from pgqueue.jobs
where id = any(%(ids)s::bigint[])
  and id <> all(array(select id from free_jobs))
order by id

-- Where jobs are: live (finished_at is null) or finished.
-- name: find_places
select id, state, run_at > pgqueue.clock() as is_later, null::timestamptz as finished_at
from pgqueue.jobs
where id = any(%(ids)s::bigint[])
union all
select id, state, false as is_later, finished_at
from pgqueue.finished_jobs
where id = any(%(ids)s::bigint[])

-- Which finished jobs a filter means, oldest first; never those that ended after the call began, or
-- a job that fails again at once would be found again.
-- name: find_retryable
select id, finished_at
from pgqueue.finished_jobs
where state = any(%(states)s::text[])
  and (%(task)s::text is null or task = %(task)s)
  and (%(queue)s::text is null or queue = %(queue)s)
  and (%(tenant)s::text is null or tenant = %(tenant)s)
  and (%(tag)s::text is null or %(tag)s = any(tags))
  and (%(reason)s::text is null or errors -> -1 ->> 'reason' = %(reason)s)
  and (%(workflow_id)s::bigint is null or workflow_id = %(workflow_id)s)
  and (%(since)s::timestamptz is null or finished_at >= %(since)s)
  and (%(until)s::timestamptz is null or finished_at < %(until)s)
  and finished_at <= pgqueue.clock()
order by finished_at, id
limit %(n)s

-- What finished jobs were given.
-- name: find_payloads
select ended.id, ended.task, ended.payload
from unnest(
  %(ids)s::bigint[],
  %(finished_ats)s::timestamptz[]
) as asked (id, finished_at)
cross join lateral (
  select id, task, payload
  from pgqueue.finished_jobs
  where finished_jobs.id = asked.id
    and finished_jobs.finished_at = asked.finished_at
  limit 1
) as ended

-- Locks the schedules whose windows these jobs are: no tick lets another one start meanwhile.
-- name: lock_schedules_of_jobs
select id
from pgqueue.schedules
where id = any(array(
  select schedule_id
  from pgqueue.windows
  where job_id = any(%(ids)s::bigint[])
))
order by id
for no key update

-- Moves finished jobs back into their queues under their ids. The insert comes first and the delete
-- follows what it inserted: a job whose unique key is taken stays where it is. Rows that another
-- operator holds are skipped. `tries` says how many a task's policy gives; null is one.
-- Returns the ids it met, whether each moved, and for one that did not who holds its key.
-- At most 500 a call.
-- name: retry_jobs
with
  targets as materialized (
    select
      held.id, held.finished_at, held.state, held.task, held.queue, held.priority,
      coalesce(asked.payload::jsonb, held.payload) as payload,
      held.tenant, held.tags, held.unique_key, held.limits, held.scheduled_at, held.attempt,
      greatest(held.max_attempts, held.attempt + coalesce(policy.tries, 1)) as max_attempts,
      held.started_at, held.created_at, held.timeout, held.errors, held.headers,
      held.workflow_id, held.expires_at
    from unnest(
      %(ids)s::bigint[],
      %(finished_ats)s::timestamptz[],
      %(payloads)s::text[]
    ) as asked (id, finished_at, payload)
    cross join lateral (
      select
        id, finished_at, state, task, queue, priority, payload, tenant, tags, unique_key, limits,
        scheduled_at, attempt, max_attempts, started_at, created_at, timeout, errors, headers,
        workflow_id, expires_at
      from pgqueue.finished_jobs
      where finished_jobs.id = asked.id
        and finished_jobs.finished_at = asked.finished_at
        and finished_jobs.state = any(%(states)s::text[])
      limit 1
      for update skip locked
    ) as held
    left join unnest(%(tasks)s::text[], %(tries)s::integer[]) as policy (task, tries)
      on policy.task = held.task
  ),
  -- Nodes of workflows wait for those of their parents that have not ended, or come back with them.
  open_parents as materialized (
    select edges.child_id as id, max(edges.parent_id) as waits_for
    from targets
    join pgqueue.job_dependencies as edges on edges.child_id = targets.id
    join pgqueue.workflow_nodes as parents on parents.job_id = edges.parent_id
    where targets.workflow_id is not null
      and (parents.outcome is null or parents.job_id = any(array(select id from targets)))
    group by edges.child_id
  ),
  -- The job of a window waits for its turn again: its successor may be under way.
  in_turn as materialized (
    select windows.job_id as id
    from pgqueue.windows
    join pgqueue.schedules on schedules.id = windows.schedule_id
    left join pgqueue.backfills on backfills.id = windows.backfill_id
    where windows.job_id = any(array(select id from targets))
      and case
        when backfills.id is null then schedules.overlap <> 'allow'
        else backfills.finished_at is null and backfills.cancelled_at is null
      end
  ),
  waiting_ones as materialized (
    select id from open_parents
    union
    select id from in_turn
  ),
  revived_jobs as (
    insert into pgqueue.jobs (
      id, task, queue, priority, state, blocked_on, order_name, payload, tenant, tags, unique_key,
      limits, run_at, scheduled_at, attempt, max_attempts, started_at, created_at, timeout, errors, headers,
      workflow_id, expires_at
    )
    select
      targets.id, task, queue, priority,
      case when waiting_ones.id is null then pgqueue.ready_state(limits) else 'waiting' end,
      case when waiting_ones.id is null then pgqueue.ready_on(limits) end,
      case when waiting_ones.id is null then pgqueue.ready_order(limits) end,
      payload, tenant, tags, unique_key, limits, pgqueue.clock_now(), scheduled_at, attempt,
      max_attempts, started_at, created_at, timeout, errors, headers, workflow_id,
      -- A time that has passed would end it again at once.
      case when expires_at > pgqueue.clock() then expires_at end
    from targets
    left join waiting_ones on waiting_ones.id = targets.id
    order by targets.id
    on conflict do nothing
    returning id, workflow_id
  ),
  reopened_nodes as (
    update pgqueue.workflow_nodes as nodes
    set
      outcome = null,
      result = null,
      started_at = null,
      finished_at = null,
      waits_for = (select waits_for from open_parents where open_parents.id = nodes.job_id)
    where job_id = any(array(select id from revived_jobs where workflow_id is not null))
  ),
  told_workflows as (
    insert into pgqueue.workflow_news (workflow_id, job_id)
    select workflow_id, id
    from revived_jobs
    where workflow_id is not null
  ),
  -- Kept, a retry goes on where it failed.
  forgotten_steps as (
    delete from pgqueue.job_steps
    where %(from_start)s
      and job_id = any(array(select id from revived_jobs))
  ),
  -- The windows they are the jobs of are open again.
  reopened_windows as (
    update pgqueue.windows
    set
      outcome = null,
      started_at = null,
      finished_at = null,
      held = job_id in (select in_turn.id from in_turn)
    where job_id = any(array(select id from revived_jobs))
  ),
  removed_jobs as (
    delete from pgqueue.finished_jobs
    using targets
    join revived_jobs on revived_jobs.id = targets.id
    where finished_jobs.id = targets.id
      and finished_jobs.finished_at = targets.finished_at
      and finished_jobs.state = targets.state
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s,
      %(source)s,
      %(action)s,
      case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end,
      jsonb_build_object('ids', jsonb_agg(id order by id)) || %(details)s::jsonb
    from revived_jobs
    having count(*) > 0
  )
select
  targets.id,
  revived_jobs.id is not null as moved,
  (
    select jobs.id
    from pgqueue.jobs
    where jobs.unique_key = targets.unique_key
  ) as holder
from targets
left join revived_jobs on revived_jobs.id = targets.id

-- Lets jobs that wait for their time run now; returns their ids.
-- name: hurry_jobs
with
  targets as materialized (
    select ctid as tid
    from pgqueue.jobs
    where id = any(%(ids)s::bigint[])
      and state in ('queued', 'blocked')
      and run_at > pgqueue.clock()
    order by id
    for update
  ),
  hurried_jobs as (
    update pgqueue.jobs
    set
      run_at = pgqueue.clock_now(),
      state = pgqueue.ready_state(limits),
      blocked_on = pgqueue.ready_on(limits),
      admitted_seq = null,
      max_attempts = greatest(max_attempts, attempt + 1)
    where ctid = any(array(select tid from targets))
    returning id
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s,
      %(source)s,
      'run-now',
      case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end,
      jsonb_build_object('ids', jsonb_agg(id order by id))
    from hurried_jobs
    having count(*) > 0
  )
select id
from hurried_jobs

-- Deletes jobs that do not run, finished ones included, with their logs and the periods of their
-- unique keys. Returns what became of each; an id that is missing was edited in between (ask again)
-- or never was. At most 500 ids a call.
-- name: delete_jobs
with
  targets as materialized (
    select ctid as tid, id, state
    from pgqueue.jobs
    where id = any(%(ids)s::bigint[])
    order by id
    for update
  ),
  deleted_live as (
    delete from pgqueue.jobs
    where ctid = any(array(select tid from targets where state <> 'running'))
    returning id, unique_key
  ),
  deleted_finished as (
    delete from pgqueue.finished_jobs
    where id = any(%(ids)s::bigint[])
    returning id, unique_key
  ),
  deleted_jobs as materialized (
    select id, unique_key
    from deleted_live
    union all
    select id, unique_key
    from deleted_finished
  ),
  deleted_logs as (
    delete from pgqueue.job_logs
    where job_id = any(array(select id from deleted_jobs))
  ),
  deleted_steps as (
    delete from pgqueue.job_steps
    where job_id = any(array(select id from deleted_jobs))
  ),
  freed_keys as (
    delete from pgqueue.unique_keys
    using deleted_jobs
    where unique_keys.key = deleted_jobs.unique_key
      and unique_keys.job_id = deleted_jobs.id
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s,
      %(source)s,
      'delete',
      case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end,
      jsonb_build_object('ids', jsonb_agg(id order by id))
    from deleted_jobs
    having count(*) > 0
  )
select id, 'deleted' as became
from deleted_jobs
union all
select id, 'running' as became
from targets
where state = 'running'

-- Pauses a queue, used or not; no row comes back when it was paused already.
-- name: pause_queue
with
  paused_queue as (
    insert into pgqueue.queues as known (name, paused, paused_at, paused_by, pause_reason)
    values (%(queue)s, true, pgqueue.clock_now(), %(who)s, %(reason)s)
    on conflict (name) do update
    set
      paused = true,
      paused_at = excluded.paused_at,
      paused_by = excluded.paused_by,
      pause_reason = excluded.pause_reason
    where not known.paused
    returning name
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s, %(source)s, 'pause', 'queue ' || name,
      jsonb_strip_nulls(jsonb_build_object('reason', %(reason)s::text))
    from paused_queue
  )
select name
from paused_queue

-- Lets workers take from a paused queue again; no row comes back when it was not paused.
-- name: resume_queue
with
  resumed_queue as (
    update pgqueue.queues
    set paused = false, paused_at = null, paused_by = null, pause_reason = null
    where name = %(queue)s
      and paused
    returning name
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target)
    select %(who)s, %(source)s, 'resume', 'queue ' || name
    from resumed_queue
  )
select name
from resumed_queue
