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
    select max(window_end)
    from pgqueue.windows
    where windows.schedule_id = schedules.id
      and windows.mode = 'window'
      -- Before, not at: with next_run_at set back the first window comes out as it did.
      and windows.window_end < schedules.next_run_at
  ) as last_window_end,
  pgqueue.clock() as now
from pgqueue.schedules
where enabled
  and next_run_at <= pgqueue.clock()
  and (retry_at is null or retry_at <= pgqueue.clock())
order by next_run_at, id
limit %(n)s
for update skip locked

-- Seconds until the next schedule is due.
-- name: seconds_to_next_schedule
select
  extract(
    epoch from min(greatest(next_run_at, coalesce(retry_at, next_run_at))) - pgqueue.clock()
  )::double precision
from pgqueue.schedules
where enabled

-- Inserts the windows of one schedule that do not exist yet, and one job for each that it really
-- inserted; returns how many.
-- name: insert_windows
with
  new_windows as (
    insert into pgqueue.windows (schedule_id, window_start, window_end, mode, job_id)
    select
      %(schedule_id)s,
      asked.window_start,
      asked.window_end,
      'window',
      nextval(pg_get_serial_sequence('pgqueue.jobs', 'id'))
    from unnest(
      %(window_starts)s::timestamptz[],
      %(window_ends)s::timestamptz[]
    ) as asked (window_start, window_end)
    on conflict (schedule_id, window_start, mode) do nothing
    returning job_id, window_start, window_end, mode
  ),
  new_jobs as (
    insert into pgqueue.jobs (
      id, task, queue, payload, run_at, scheduled_at, max_attempts, unique_key
    )
    select
      new_windows.job_id,
      %(task)s,
      %(queue)s,
      asked.payload::jsonb,
      greatest(
        new_windows.window_end + %(delay)s * interval '1 second',
        pgqueue.clock_now()
      ),
      new_windows.window_end + %(delay)s * interval '1 second',
      %(max_attempts)s,
      'schedule:' || %(schedule_id)s::text || ':'
        || extract(epoch from new_windows.window_start)::bigint || ':' || new_windows.mode
    from new_windows
    join unnest(
      %(window_starts)s::timestamptz[],
      %(payloads)s::text[]
    ) as asked (window_start, payload) using (window_start)
    order by new_windows.window_start
    returning id
  )
select count(*)
from new_jobs

-- Moves a schedule on after its windows were inserted.
-- name: advance_schedule
update pgqueue.schedules
set
  next_run_at = %(next_run_at)s,
  last_run_at = coalesce(%(last_run_at)s::timestamptz, last_run_at),
  failures = 0,
  last_error = null,
  retry_at = null
where id = %(schedule_id)s
returning id

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
-- place it has reached is kept.
-- name: put_schedule
with
  put as (
    insert into pgqueue.schedules (
      name, cron, timezone, task, queue, payload, catch_up, delay, max_attempts,
      window_parameters, next_run_at
    )
    values (
      %(name)s, %(cron)s, %(timezone)s, %(task)s, %(queue)s, %(payload)s::jsonb, %(catch_up)s,
      %(delay)s, %(max_attempts)s, %(window_parameters)s::text[], %(next_run_at)s
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
      next_run_at = case
        when schedules.cron = excluded.cron and schedules.timezone = excluded.timezone
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
  last_run_at, failures, last_error
from pgqueue.schedules
order by name

-- name: clock
select pgqueue.clock()
