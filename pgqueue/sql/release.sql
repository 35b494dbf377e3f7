-- Held windows: whose turn it is, and how those ended that were let go.

-- Whether a window is held, and whether a backfill is under way.
-- name: look_for_held
select
  exists (select from pgqueue.windows where held and backfill_id is null),
  exists (select from pgqueue.backfills where finished_at is null)

-- Lets held windows go whose turn it is: in order, as many of a schedule as its overlap policy has
-- room for, of a backfill as many as its concurrency says; and where the schedule follows another
-- one, only those whose span that one has completed. A loose walk over the small index of held ones:
-- nothing is held, nothing is read. A head whose job is gone, deleted or cancelled, is closed; ask
-- again for the next one. Returns what became of how many.
-- name: release_windows
with recursive
  holders as (
    (
      select schedule_id
      from pgqueue.windows
      where held
        and backfill_id is null
      order by schedule_id
      limit 1
    )
    union all
    select following.schedule_id
    from holders
    cross join lateral (
      select schedule_id
      from pgqueue.windows
      where held
        and backfill_id is null
        and schedule_id > holders.schedule_id
      order by schedule_id
      limit 1
    ) as following
  ),
  heads_of_schedules as materialized (
    select ready.id, ready.job_id
    from holders
    join pgqueue.schedules on schedules.id = holders.schedule_id
    cross join lateral (
      select held_ones.id, held_ones.job_id
      from pgqueue.windows as held_ones
      where held_ones.schedule_id = holders.schedule_id
        and held_ones.held
        and held_ones.backfill_id is null
        and (
          schedules.after_id is null
          -- What was asked for by hand has a span of its own, and waits for nobody's.
          or held_ones.mode <> 'window'
          or pgqueue.is_span_completed(
            schedules.after_id, held_ones.window_start, held_ones.window_end
          )
        )
      order by held_ones.window_start, held_ones.id
      limit case
        when schedules.overlap = 'allow' then 100
        when exists (
          select
          from pgqueue.windows as open_ones
          join pgqueue.jobs on jobs.id = open_ones.job_id
          where open_ones.schedule_id = holders.schedule_id
            and open_ones.outcome is null
            and not open_ones.held
            and open_ones.backfill_id is null
        ) then 0
        else 1
      end
    ) as ready
    -- Of two tickers one does it. Skipping a held window instead would let the next one go.
    for no key update of schedules skip locked
  ),
  heads_of_backfills as materialized (
    select ready.id, ready.job_id
    from pgqueue.backfills
    join pgqueue.schedules on schedules.id = backfills.schedule_id
    cross join lateral (
      select held_ones.id, held_ones.job_id
      from pgqueue.windows as held_ones
      where held_ones.backfill_id = backfills.id
        and held_ones.held
        and held_ones.outcome is null
        and (
          schedules.after_id is null
          or pgqueue.is_span_completed(
            schedules.after_id, held_ones.window_start, held_ones.window_end
          )
        )
      order by held_ones.window_start
      limit greatest(
        0,
        backfills.concurrency - (
          select count(*)
          from pgqueue.windows as open_ones
          join pgqueue.jobs on jobs.id = open_ones.job_id
          where open_ones.backfill_id = backfills.id
            and open_ones.outcome is null
            and not open_ones.held
        )
      )
    ) as ready
    where backfills.finished_at is null
      and backfills.cancelled_at is null
    for no key update of backfills skip locked
  ),
  heads as materialized (
    select id, job_id
    from heads_of_schedules
    union all
    select id, job_id
    from heads_of_backfills
  ),
  released_jobs as (
    update pgqueue.jobs
    set
      state = pgqueue.ready_state(limits),
      blocked_on = pgqueue.ready_on(limits),
      order_name = pgqueue.ready_order(limits),
      run_at = greatest(run_at, pgqueue.clock_now())
    where id = any(array(select job_id from heads))
      and state = 'waiting'
  ),
  released_windows as (
    update pgqueue.windows
    set held = false, outcome = pgqueue.window_outcome(job_id, created_at)
    where id = any(array(select id from heads))
      and held
    returning outcome
  )
select
  count(*) filter (where outcome is null) as released,
  count(*) filter (where outcome is not null) as closed
from released_windows

-- Closes up to 1000 held windows whose jobs were cancelled or deleted.
-- name: close_dead_windows
with dead_windows as materialized (
  select windows.id, windows.job_id
  from pgqueue.windows
  where held
    and backfill_id is null
    and not exists (
      select
      from pgqueue.jobs
      where jobs.id = windows.job_id
    )
  limit 1000
  for update of windows skip locked
)
update pgqueue.windows
set held = false, outcome = pgqueue.window_outcome(windows.job_id, windows.created_at)
from dead_windows
where windows.id = dead_windows.id
  and windows.job_id = dead_windows.job_id
  and windows.held
returning windows.id

-- Jobs that a newer window of their schedule puts an end to, locked; one that somebody holds comes at
-- the next look.
-- name: lock_superseded
select jobs.id
from pgqueue.schedules
cross join lateral (
  select max(held_ones.window_start) as window_start
  from pgqueue.windows as held_ones
  where held_ones.schedule_id = schedules.id
    and held_ones.held
    and held_ones.backfill_id is null
) as newest
cross join lateral (
  select job_id
  from pgqueue.windows as held_ones
  where held_ones.schedule_id = schedules.id
    and held_ones.held
    and held_ones.backfill_id is null
    and held_ones.window_start < newest.window_start
  union all
  select job_id
  from pgqueue.windows as open_ones
  where open_ones.schedule_id = schedules.id
    and open_ones.outcome is null
    and not open_ones.held
    and open_ones.backfill_id is null
    and open_ones.window_start < newest.window_start
) as older
join pgqueue.jobs on jobs.id = older.job_id
where schedules.overlap = 'cancel-running'
  and jobs.cancel_requested_at is null
order by jobs.id
limit 500
for update of jobs skip locked

-- Locks up to `n` open windows from a place on. What is locked by a retry, which opens its job's
-- window again, is left for the next time.
-- name: lock_open_windows
select schedule_id, id
from pgqueue.windows
where outcome is null
  and not held
  and (schedule_id, id) > (%(after_schedule)s, %(after)s)
order by schedule_id, id
limit %(n)s
for update skip locked

-- Keeps how these windows ended whose jobs are no longer live. A statement of its own: it sees what
-- was committed before their rows were locked. Returns how many, and the failed ones' schedules.
-- name: settle_windows
with
  endings as materialized (
    select windows.id, ended.state, ended.started_at, ended.finished_at
    from pgqueue.windows
    left join lateral (
      select state, started_at, finished_at
      from pgqueue.finished_jobs
      where finished_jobs.id = windows.job_id
        and finished_jobs.finished_at >= windows.created_at
      order by finished_at desc
      limit 1
    ) as ended on true
    where windows.id = any(%(ids)s::bigint[])
      and not exists (
        select
        from pgqueue.jobs
        where jobs.id = windows.job_id
      )
  ),
  settled_windows as (
    update pgqueue.windows
    set
      outcome = coalesce(endings.state, 'lost'),
      started_at = endings.started_at,
      finished_at = endings.finished_at
    from endings
    where windows.id = endings.id
    returning windows.schedule_id, windows.outcome
  )
select
  (select count(*) from settled_windows) as settled,
  array(
    select distinct schedule_id
    from settled_windows
    where outcome = 'failed'
  ) as failed

-- name: list_problems
select id, name, problems, failed_in_a_row, late_by, open_since, failures, last_error, waiting
from pgqueue.schedule_health
where cardinality(problems) > 0
  and (%(ids)s::bigint[] is null or id = any(%(ids)s::bigint[]))
order by name
