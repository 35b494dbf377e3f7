-- Backfills: windows of the past, a few at a time.

-- Backfills with something to do, oldest first: with room for more windows, or over. How many of
-- their windows wait or run. One that another ticker works on is skipped, and one whose schedule is
-- held or is to be tried again later.
-- name: lock_backfills
select
  backfills.id, backfills.reached, backfills.range_end, open_ones.number,
  backfills.cancelled_at is not null or backfills.reached >= backfills.range_end as is_over,
  schedules.id as schedule_id, schedules.name
from pgqueue.backfills
join pgqueue.schedules on schedules.id = backfills.schedule_id
cross join lateral (
  select count(*) as number
  from (
    select
    from pgqueue.windows
    left join pgqueue.jobs on jobs.id = windows.job_id
    where windows.backfill_id = backfills.id
      and windows.outcome is null
      and (windows.held or jobs.id is not null)
    limit %(most)s
  ) as counted
) as open_ones
where backfills.finished_at is null
  and (schedules.retry_at is null or schedules.retry_at <= pgqueue.clock())
  and case
    when backfills.cancelled_at is not null or backfills.reached >= backfills.range_end
      then open_ones.number = 0
    else open_ones.number < %(most)s
  end
order by backfills.id
limit 20
for update of backfills, schedules skip locked

-- name: advance_backfill
update pgqueue.backfills
set reached = %(reached)s
where id = %(id)s
returning id

-- A statement of its own: it sees what was brought back before the backfill was locked.
-- name: finish_backfill
update pgqueue.backfills
set finished_at = pgqueue.clock_now()
where id = %(id)s
  and not exists (
    select
    from pgqueue.windows
    left join pgqueue.jobs on jobs.id = windows.job_id
    where windows.backfill_id = backfills.id
      and windows.outcome is null
      and (windows.held or jobs.id is not null)
  )
returning id

-- name: add_backfill
with
  added_backfill as (
    insert into pgqueue.backfills (
      schedule_id, range_start, range_end, concurrency, reached, created_by
    )
    values (
      %(schedule_id)s, %(range_start)s, %(range_end)s, %(concurrency)s, %(range_start)s, %(who)s
    )
    returning id
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s, %(source)s, 'backfill', 'schedule ' || %(name)s::text,
      jsonb_build_object(
        'backfill', id, 'from', %(range_start)s::timestamptz, 'to', %(range_end)s::timestamptz,
        'concurrency', %(concurrency)s::integer
      )
    from added_backfill
  )
select id
from added_backfill

-- An unfinished backfill of the same range: asking for it again goes on with it, so many at a time.
-- name: continue_backfill
update pgqueue.backfills
set concurrency = %(concurrency)s
where schedule_id = %(schedule_id)s
  and range_start = %(range_start)s
  and range_end = %(range_end)s
  and finished_at is null
  and cancelled_at is null
returning id

-- Its schedule, too: what is brought back meanwhile comes before or after.
-- name: lock_backfill
select backfills.id
from pgqueue.backfills
join pgqueue.schedules on schedules.id = backfills.schedule_id
where backfills.id = %(id)s
for update of backfills, schedules

-- Stops a backfill: what is under way ends, what waits is cancelled. Returns the jobs that wait.
-- name: cancel_backfill
with
  cancelled_backfill as (
    update pgqueue.backfills
    set cancelled_at = pgqueue.clock_now()
    where id = %(id)s
      and finished_at is null
      and cancelled_at is null
    returning id, schedule_id
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target, details)
    select
      %(who)s, %(source)s, 'cancel-backfill', 'schedule ' || schedules.name,
      jsonb_build_object('backfill', cancelled_backfill.id)
    from cancelled_backfill
    join pgqueue.schedules on schedules.id = cancelled_backfill.schedule_id
  )
select windows.job_id
from cancelled_backfill
left join pgqueue.windows on windows.backfill_id = cancelled_backfill.id and windows.held

-- Closes the windows of a cancelled backfill whose jobs were cancelled.
-- name: close_cancelled
update pgqueue.windows
set held = false, outcome = 'cancelled'
where backfill_id = %(id)s
  and held
  and not exists (
    select
    from pgqueue.jobs
    where jobs.id = windows.job_id
  )
returning id

-- Which of these spans no fire and no earlier backfill has covered, in their order.
-- name: find_uncovered
select asked.window_start
from unnest(
  %(window_starts)s::timestamptz[],
  %(window_ends)s::timestamptz[]
) as asked (window_start, window_end)
where not pgqueue.is_span_covered(%(schedule_id)s, asked.window_start, asked.window_end)
order by asked.window_start

-- name: list_backfills
select
  id, schedule, range_start, range_end, concurrency, reached, created_at, created_by, cancelled_at,
  windows, waiting, open, completed, failed, state
from pgqueue.backfill_status
where %(schedule)s::text is null or schedule = %(schedule)s
order by id desc
limit 100
