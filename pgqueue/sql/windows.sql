-- Windows and their jobs: inserting them, giving them another job, looking at them.

-- Inserts windows that do not exist yet, of any schedules, and one job for each that it really
-- inserted; returns how many windows and jobs, by schedule. A held one's job waits for
-- release_windows; one that is skipped gets no job.
-- name: insert_windows
with
  asked as materialized (
    select
      schedule_id, window_start, window_end, payload, run_at, is_skipped,
      -- The first of its schedule starts at once where none is under way: the row of the schedule
      -- is locked, so nobody lets another one go meanwhile.
      is_held
        and not is_skipped
        and not (
          may_start
          -- Two looks, each by its small index: one for both would walk all of its windows.
          -- In its order: where many were held lately the planner would read the whole table.
          and (
            select windows.window_start
            from pgqueue.windows
            where windows.schedule_id = asked.schedule_id
              and windows.held
              and windows.backfill_id is null
            order by windows.window_start
            limit 1
          ) is null
          and not exists (
            select
            from pgqueue.windows
            join pgqueue.jobs on jobs.id = windows.job_id
            where windows.schedule_id = asked.schedule_id
              and windows.outcome is null
              and not windows.held
              and windows.backfill_id is null
          )
        ) as is_held,
      task, queue, max_attempts, priority, tags, tenant, timeout
    from unnest(
      %(schedule_ids)s::bigint[],
      %(window_starts)s::timestamptz[],
      %(window_ends)s::timestamptz[],
      %(payloads)s::text[],
      %(run_ats)s::timestamptz[],
      %(skipped)s::boolean[],
      %(held)s::boolean[],
      %(may_start)s::boolean[],
      %(task)s::text[],
      %(queue)s::text[],
      %(max_attempts)s::integer[],
      %(priority)s::smallint[],
      %(tags)s::text[],
      %(tenant)s::text[],
      %(timeout)s::double precision[]
    ) as asked (
      schedule_id, window_start, window_end, payload, run_at, is_skipped, is_held, may_start,
      task, queue, max_attempts, priority, tags, tenant, timeout
    )
  ),
  new_windows as (
    insert into pgqueue.windows (
      schedule_id, window_start, window_end, mode, job_id, held, due_at, backfill_id, outcome
    )
    select
      schedule_id,
      window_start,
      window_end,
      %(mode)s,
      case when not is_skipped then nextval(pg_get_serial_sequence('pgqueue.jobs', 'id')) end,
      is_held,
      run_at,
      %(backfill_id)s::bigint,
      case when is_skipped then 'skipped' end
    from asked
    -- What a fire or a backfill has covered is not filled in again. `offset 0` has each look go by
    -- the index: else all windows of the past would be read into a table of hashes.
    where case %(mode)s
      when 'window' then not exists (
        select
        from pgqueue.windows
        where windows.schedule_id = asked.schedule_id
          and windows.window_start = asked.window_start
          and windows.mode in ('window', 'backfill')
        offset 0
      )
      when 'backfill' then not pgqueue.is_span_covered(schedule_id, window_start, window_end)
      else true
    end
    on conflict (schedule_id, window_start, mode) do nothing
    returning schedule_id, job_id, window_start, mode
  ),
  new_jobs as (
    insert into pgqueue.jobs (
      id, task, queue, payload, limits, state, blocked_on, order_name, run_at, scheduled_at,
      max_attempts, priority, tags, tenant, timeout, unique_key
    )
    select
      new_windows.job_id,
      asked.task,
      asked.queue,
      asked.payload::jsonb,
      declared.limits,
      case when asked.is_held then 'waiting' else pgqueue.ready_state(declared.limits) end,
      case when not asked.is_held then pgqueue.ready_on(declared.limits) end,
      case when not asked.is_held then pgqueue.ready_order(declared.limits) end,
      greatest(asked.run_at, pgqueue.clock_now()),
      asked.run_at,
      asked.max_attempts,
      asked.priority,
      asked.tags::text[],
      asked.tenant,
      asked.timeout,
      pgqueue.window_key(new_windows.schedule_id, new_windows.window_start, new_windows.mode)
    from new_windows
    join asked using (schedule_id, window_start)
    cross join lateral (
      select pgqueue.limits_of(asked.task, asked.queue, asked.tenant, asked.payload::jsonb)
        as limits
      offset 0
    ) as declared
    where new_windows.job_id is not null
    order by new_windows.schedule_id, new_windows.window_start
    returning id
  )
select
  new_windows.schedule_id,
  count(*) as windows,
  count(new_jobs.id) as jobs,
  max(new_jobs.id) as job_id
from new_windows
left join new_jobs on new_jobs.id = new_windows.job_id
group by new_windows.schedule_id

-- Gives a window another job: a rerun, or a window that goes on to a later end. Returns its job and
-- run; no row comes back while a job of its lives. One of a backfill waits for its turn in that.
-- name: renew_window
with
  renewed_window as (
    update pgqueue.windows
    set
      window_end = %(window_end)s,
      job_id = nextval(pg_get_serial_sequence('pgqueue.jobs', 'id')),
      run = run + 1,
      held = case
        when backfill_id is null then %(held)s
        else exists (
          select
          from pgqueue.backfills
          where backfills.id = windows.backfill_id
            and backfills.finished_at is null
            and backfills.cancelled_at is null
        )
      end,
      due_at = pgqueue.clock_now(),
      outcome = null,
      started_at = null,
      finished_at = null,
      created_at = pgqueue.clock_now()
    where id = %(id)s
      and not exists (
        select
        from pgqueue.jobs
        where jobs.id = windows.job_id
      )
      -- The job of an earlier run may have been brought back by hand.
      and not exists (
        select
        from pgqueue.jobs
        where jobs.unique_key
          = pgqueue.window_key(windows.schedule_id, windows.window_start, windows.mode)
      )
    returning id, schedule_id, job_id, run, window_start, mode, held
  ),
  new_job as (
    insert into pgqueue.jobs (
      id, task, queue, payload, limits, state, blocked_on, order_name, max_attempts, priority, tags,
      tenant, timeout, unique_key
    )
    select
      job_id,
      %(task)s,
      %(queue)s,
      %(payload)s::jsonb,
      declared.limits,
      case when held then 'waiting' else pgqueue.ready_state(declared.limits) end,
      case when not held then pgqueue.ready_on(declared.limits) end,
      case when not held then pgqueue.ready_order(declared.limits) end,
      %(max_attempts)s,
      %(priority)s,
      %(tags)s::text[],
      %(tenant)s,
      %(timeout)s,
      pgqueue.window_key(schedule_id, window_start, mode)
    from renewed_window
    cross join lateral (
      select pgqueue.limits_of(%(task)s, %(queue)s, %(tenant)s, %(payload)s::jsonb) as limits
      offset 0
    ) as declared
  )
select job_id, run
from renewed_window

-- A window by its schedule, start and mode.
-- name: find_window_at
select id
from pgqueue.windows
where schedule_id = %(schedule_id)s
  and window_start = %(window_start)s
  and mode = %(mode)s

-- How many jobs of a schedule's regular windows live, held ones included.
-- name: count_live_windows
select
  (
    select count(*)
    from pgqueue.windows
    join pgqueue.jobs on jobs.id = windows.job_id
    where windows.schedule_id = %(schedule_id)s
      and windows.held
      and windows.backfill_id is null
  ) + (
    select count(*)
    from pgqueue.windows
    join pgqueue.jobs on jobs.id = windows.job_id
    where windows.schedule_id = %(schedule_id)s
      and windows.outcome is null
      and not windows.held
      and windows.backfill_id is null
  )

-- Where the last completed window of a schedule ended, however it came; where none is, the start of
-- its first one.
-- name: find_last_success
select coalesce(
  (
    select windows.window_end
    from pgqueue.windows
    left join pgqueue.finished_jobs as ended
      on windows.outcome is null
      and ended.id = windows.job_id
      and ended.finished_at >= windows.created_at
    where windows.schedule_id = %(schedule_id)s
      and coalesce(windows.outcome, ended.state) = 'completed'
      and not exists (
        select
        from pgqueue.jobs
        where jobs.id = windows.job_id
      )
    order by windows.window_start desc
    limit 1
  ),
  (
    select min(windows.window_start)
    from pgqueue.windows
    where windows.schedule_id = %(schedule_id)s
  )
)

-- name: list_windows
select
  id, schedule, window_start, window_end, mode, run, job_id, state, attempt, started_at,
  finished_at, held, backfill_id, lag, duration
from pgqueue.window_status
where (%(schedule)s::text is null or schedule = %(schedule)s)
  and (%(state)s::text is null or state = %(state)s)
order by window_start desc, id desc
limit %(n)s

-- name: find_window
select windows.id, schedules.name, windows.window_start, windows.window_end, windows.mode
from pgqueue.windows
join pgqueue.schedules on schedules.id = windows.schedule_id
where windows.id = %(id)s

-- Deletes up to 1000 windows that ended and are older than the table `retention` keeps them; without
-- a row there they stay. Of each schedule the newest stays, and the newest completed one of those
-- whose next window begins where that ends.
-- name: sweep_windows
with
  kept as materialized (
    select pgqueue.clock() - keep as since
    from pgqueue.retention
    where state_group = 'windows'
  ),
  old_windows as materialized (
    select old_ones.tid
    from kept
    cross join pgqueue.schedules
    cross join lateral (
      select window_start
      from pgqueue.windows
      where windows.schedule_id = schedules.id
        and (schedules.window_mode = 'window' or windows.outcome = 'completed')
      order by window_start desc
      limit 1
    ) as newest
    cross join lateral (
      select windows.ctid as tid
      from pgqueue.windows
      where windows.schedule_id = schedules.id
        and windows.window_start < newest.window_start
        and windows.window_start < kept.since
        and greatest(windows.window_end, windows.created_at, windows.finished_at) < kept.since
        and windows.outcome is not null
      order by windows.window_start
      limit 1000
    ) as old_ones
    limit 1000
  )
delete from pgqueue.windows
where ctid = any(array(select tid from old_windows))
  -- A retry may have opened it meanwhile.
  and outcome is not null
returning id

-- Backfills that ended so long ago.
-- name: sweep_backfills
delete from pgqueue.backfills
where finished_at < pgqueue.clock() - (
  select keep
  from pgqueue.retention
  where state_group = 'windows'
)
returning id
