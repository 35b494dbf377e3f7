-- Schedules, and the windows that their ticks insert.

-- Locks up to `n` due schedules for one pass; a schedule that another ticker holds is skipped, and
-- one that it has just moved on is seen as moved. `last_window_end` is where the first window of
-- this pass begins.
-- name: lock_due_schedules
select
  id, name, cron, timezone, task, queue, payload, catch_up, delay, max_attempts,
  window_parameters,
  -- Null where the application cannot hold it: read as it is, one such row would stop them all.
  case when next_run_at between '0001-01-02 UTC' and '9999-12-30 UTC' then next_run_at end,
  failures,
  (
    select window_end
    from pgqueue.windows
    where windows.schedule_id = schedules.id
      and windows.mode = 'window'
      -- Before, not at: with next_run_at set back the first window comes out as it did.
      and windows.window_end < schedules.next_run_at
      -- They tile, so the last to begin is the last to end; its index gives it at once.
      and windows.window_start < schedules.next_run_at
    order by windows.window_start desc
    limit 1
  ) as last_window_end,
  pgqueue.clock() as now,
  overlap, priority, tags, tenant, timeout, window_mode, catch_up_max_age, catch_up_max_count,
  jitter, ends_at, after_id
from pgqueue.schedules
where enabled
  and next_run_at <= pgqueue.clock()
  and (ends_at is null or next_run_at <= ends_at)
  and (retry_at is null or retry_at <= pgqueue.clock())
order by next_run_at, id
limit %(n)s
for update skip locked

-- Seconds until the next schedule is due: the first by the index, or one that failed and is to be
-- tried again. And whether a window or a backfill waits for a tick.
-- name: seconds_to_next_schedule
select
  extract(
    epoch from least(
      (
        select next_run_at
        from pgqueue.schedules
        where enabled
          and (retry_at is null or retry_at <= pgqueue.clock())
          and (ends_at is null or next_run_at <= ends_at)
        order by next_run_at
        limit 1
      ),
      (
        select min(greatest(retry_at, next_run_at))
        from pgqueue.schedules
        where enabled
          and retry_at > pgqueue.clock()
          and (ends_at is null or next_run_at <= ends_at)
      )
    ) - pgqueue.clock()
  )::double precision,
  exists (select from pgqueue.windows where held and backfill_id is null)
    or exists (select from pgqueue.backfills where finished_at is null)

-- Moves schedules on after their windows were inserted.
-- name: advance_schedules
update pgqueue.schedules
set
  next_run_at = moved.next_run_at,
  last_run_at = coalesce(moved.last_run_at, schedules.last_run_at),
  failures = 0,
  last_error = null,
  retry_at = null
from unnest(
  %(schedule_ids)s::bigint[],
  %(next_run_ats)s::timestamptz[],
  %(last_run_ats)s::timestamptz[]
) as moved (schedule_id, next_run_at, last_run_at)
where schedules.id = moved.schedule_id
returning schedules.id

-- Marks a schedule that could not be ticked; it is tried again after a wait that doubles up to an
-- hour, and the others go on meanwhile.
-- name: mark_failed_schedule
update pgqueue.schedules
set
  failures = failures + 1,
  last_error = %(error)s,
  retry_at = pgqueue.clock_now() + least(3600, 5 * 2 ^ least(failures, 12)) * interval '1 second'
where id = %(schedule_id)s
returning failures

-- Adds a schedule, or changes the one of that name. A changed time starts from now; unchanged, the
-- place it has reached is kept. Whether it is paused is not touched.
-- name: put_schedule
with
  put as (
    insert into pgqueue.schedules (
      name, cron, timezone, task, queue, payload, catch_up, delay, max_attempts,
      window_parameters, next_run_at, overlap, priority, tags, tenant, timeout, window_mode,
      catch_up_max_age, catch_up_max_count, jitter, starts_at, ends_at, after_id, declared
    )
    values (
      %(name)s, %(cron)s, %(timezone)s, %(task)s, %(queue)s, %(payload)s::jsonb, %(catch_up)s,
      %(delay)s, %(max_attempts)s, %(window_parameters)s::text[], %(next_run_at)s, %(overlap)s,
      %(priority)s, %(tags)s::text[], %(tenant)s, %(timeout)s, %(window_mode)s,
      %(catch_up_max_age)s, %(catch_up_max_count)s, %(jitter)s, %(starts_at)s, %(ends_at)s,
      %(after_id)s, %(declared)s
    )
    on conflict (name) do update
    set
      cron = excluded.cron,
      timezone = excluded.timezone,
      task = excluded.task,
      queue = excluded.queue,
      payload = excluded.payload,
      catch_up = excluded.catch_up,
      delay = excluded.delay,
      max_attempts = excluded.max_attempts,
      window_parameters = excluded.window_parameters,
      overlap = excluded.overlap,
      priority = excluded.priority,
      tags = excluded.tags,
      tenant = excluded.tenant,
      timeout = excluded.timeout,
      window_mode = excluded.window_mode,
      catch_up_max_age = excluded.catch_up_max_age,
      catch_up_max_count = excluded.catch_up_max_count,
      jitter = excluded.jitter,
      starts_at = excluded.starts_at,
      ends_at = excluded.ends_at,
      after_id = excluded.after_id,
      declared = excluded.declared,
      next_run_at = case
        when schedules.cron = excluded.cron
          and schedules.timezone = excluded.timezone
          and schedules.starts_at is not distinct from excluded.starts_at
          then schedules.next_run_at
        else excluded.next_run_at
      end,
      failures = 0,
      last_error = null,
      retry_at = null
    returning id, name, cron, timezone, task, next_run_at, xmax = 0 as is_new
  ),
  -- What code declares is brought up to date by a worker, and by nobody in person.
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s::text,
      %(source)s::text,
      case when is_new then 'add' else 'change' end,
      'schedule ' || name,
      jsonb_build_object('cron', cron, 'timezone', timezone, 'task', task)
    from put
    where %(who)s::text is not null
  )
select id, next_run_at, is_new
from put

-- name: list_schedules
select
  id, name, cron, timezone, task, queue, payload, enabled, catch_up, overlap, delay, next_run_at,
  last_run_at, failures, last_error, priority, tags, tenant, timeout, window_mode,
  catch_up_max_age, catch_up_max_count, jitter, starts_at, ends_at,
  (
    select parents.name
    from pgqueue.schedules as parents
    where parents.id = schedules.after_id
  ) as after,
  declared, paused_at, paused_by, pause_reason
from pgqueue.schedules
where %(name)s::text is null or name = %(name)s
order by name

-- name: lock_schedule
select id
from pgqueue.schedules
where name = %(name)s
for update

-- What the jobs of a schedule have in common, and its time.
-- name: find_schedule
select
  id, task, queue, payload, delay, max_attempts, window_parameters, overlap, priority, tags, tenant,
  timeout, jitter, after_id, cron, timezone, window_mode, next_run_at, starts_at, ends_at,
  pgqueue.clock()
from pgqueue.schedules
where name = %(name)s

-- name: find_schedule_id
select id, window_mode
from pgqueue.schedules
where name = %(name)s

-- Who says which schedule runs after which, one at a time.
-- name: lock_followers
select pg_advisory_xact_lock(hashtextextended('pgqueue.schedules after', 0)) is null as locked

-- Which schedules run after this one, however far away.
-- name: find_followers
with recursive followers as (
  select id
  from pgqueue.schedules
  where after_id = %(id)s
  union
  select schedules.id
  from followers
  join pgqueue.schedules on schedules.after_id = followers.id
)
select id
from followers

-- name: find_next_followers
select name
from pgqueue.schedules
where after_id = %(id)s
order by name

-- Schedules that code has declared and declares no longer, of tasks that this code knows.
-- name: find_undeclared
select name
from pgqueue.schedules
where declared
  and name <> all(%(names)s::text[])
  and task = any(%(tasks)s::text[])
order by name

-- Lets a schedule fire no more; no row comes back when it was paused already.
-- name: pause_schedule
with
  paused_schedule as (
    update pgqueue.schedules
    set
      enabled = false,
      paused_at = pgqueue.clock_now(),
      paused_by = %(who)s,
      pause_reason = %(reason)s
    where name = %(name)s
      and enabled
    returning name
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s, %(source)s, 'pause', 'schedule ' || name,
      jsonb_strip_nulls(jsonb_build_object('reason', %(reason)s::text))
    from paused_schedule
  )
select name
from paused_schedule

-- Lets it fire again; what it has missed is for its catch-up policy.
-- name: resume_schedule
with
  resumed_schedule as (
    update pgqueue.schedules
    set enabled = true, paused_at = null, paused_by = null, pause_reason = null
    where name = %(name)s
      and not enabled
    returning name
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target)
    select %(who)s, %(source)s, 'resume', 'schedule ' || name
    from resumed_schedule
  )
select name
from resumed_schedule

-- The jobs that wait for their turn in a schedule: without it they would wait for ever.
-- name: find_held_jobs
select job_id
from pgqueue.windows
where schedule_id = %(id)s
  and held

-- Removes a schedule with its windows; jobs stay.
-- name: remove_schedule
with
  removed_schedule as (
    delete from pgqueue.schedules
    where id = %(id)s
    returning name
  )
insert into pgqueue.audit_log (who, source, action, target)
select %(who)s, %(source)s, 'remove', 'schedule ' || name
from removed_schedule
returning id

-- The line of the audit log for what is done in several statements.
-- name: record_schedule_deed
insert into pgqueue.audit_log (who, source, action, target, details)
values (%(who)s, %(source)s, %(action)s, 'schedule ' || %(name)s::text, %(details)s::jsonb)
returning id

-- name: clock
select pgqueue.clock()
