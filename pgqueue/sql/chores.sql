-- Maintenance without a leader: whoever takes a chore by a short update does it.

-- One look at what is due. Chores of which it shows that there is nothing to do are done by that; of
-- the others it takes the one that has waited longest, unless somebody holds it, and returns its name,
-- or null; and the seconds until another one may be taken.
-- name: take_chore
with
  offered as materialized (
    select name, at_most * interval '1 second' as at_most, looked_for
    from unnest(
      %(names)s::text[], %(at_most)s::double precision[], %(looked_for)s::boolean[]
    ) as offered (name, at_most, looked_for)
  ),
  due_chores as materialized (
    select chores.name, chores.due_at, offered.at_most, offered.looked_for
    from pgqueue.chores
    join offered on offered.name = chores.name
    where chores.due_at <= pgqueue.clock()
      and (chores.taken_until is null or chores.taken_until <= pgqueue.clock())
    order by chores.due_at, chores.name
    for update of chores skip locked
  ),
  -- Scalars in the order of an index, not `exists`: by statistics from when a table was empty the
  -- planner would read all of it. What is not due is not looked for.
  vain_chores as materialized (
    select name, at_most
    from due_chores
    where looked_for
      and case name
        when 'rescue' then not (
          pg_postmaster_start_time() < pgqueue.clock() - %(timeout)s * interval '1 second'
          and (
            exists (
              select
              from pgqueue.workers
              where heartbeat_at < pgqueue.clock() - %(timeout)s * interval '1 second'
            )
            -- Jobs whose worker has no row: their ids lie between those of two that have one.
            or exists (
              select
              from (
                select id, lag(id, 1, 0::bigint) over (order by id) as last_id
                from (
                  select id from pgqueue.workers
                  union all
                  select 9223372036854775807
                ) as known
              ) as gaps
              where (
                select true
                from pgqueue.jobs
                where jobs.state = 'running'
                  and jobs.worker_id > gaps.last_id
                  and jobs.worker_id < gaps.id
                order by jobs.worker_id
                limit 1
              )
            )
          )
        )
        when 'expiry' then coalesce(
          (
            select false
            from pgqueue.jobs
            where state <> 'running'
              and expires_at <= pgqueue.clock()
            order by expires_at
            limit 1
          ),
          (
            select false
            from pgqueue.jobs
            where blocked_on collate "C" = '@cancel'
            order by coalesce(tenant, '')
            limit 1
          ),
          true
        )
        when 'windows' then (
          select schedule_id
          from pgqueue.windows
          where outcome is null
            and not held
          order by schedule_id, id
          limit 1
        ) is null
        when 'workflows' then (
          select workflow_id
          from pgqueue.workflow_news
          order by workflow_id, id
          limit 1
        ) is null
        -- As make_partitions() names them.
        when 'partitions' then not exists (
          select
          from unnest(array['completed', 'failed']) as state_group
          cross join generate_series(-1, 14) as ahead
          where to_regclass(
            'pgqueue.finished_jobs_' || state_group || '_'
              || to_char((pgqueue.clock() at time zone 'UTC')::date + ahead, 'YYYYMMDD')
          ) is null
        )
        else false
      end
  ),
  done_chores as (
    update pgqueue.chores
    set
      due_at = pgqueue.clock() + least(every, vain_chores.at_most),
      taken_until = null,
      taken_by = null,
      last_run_at = pgqueue.clock_now(),
      last_seconds = extract(epoch from pgqueue.clock_now() - pgqueue.clock()),
      last_error = null
    from vain_chores
    where chores.name = vain_chores.name
    returning chores.name, chores.due_at
  ),
  taken_chore as (
    update pgqueue.chores
    set
      taken_until = pgqueue.clock_now() + %(hold)s * interval '1 second',
      taken_by = %(worker_id)s
    from (
      select name
      from due_chores
      where name not in (select name from vain_chores)
      order by due_at, name
      limit 1
    ) as longest_due
    where chores.name = longest_due.name
    returning chores.name
  )
select
  (select name from taken_chore) as name,
  (
    select extract(epoch from min(soonest) - pgqueue.clock())::double precision
    from (
      select due_at as soonest from done_chores
      union all
      select greatest(chores.due_at, coalesce(chores.taken_until, chores.due_at))
      from pgqueue.chores
      join offered on offered.name = chores.name
      where chores.name not in (select name from done_chores)
        and chores.name not in (select name from taken_chore)
    ) as others
  ) as wait

-- Holds a chore for longer; no row comes back when it was taken by somebody else meanwhile.
-- name: keep_chore
update pgqueue.chores
set taken_until = pgqueue.clock_now() + %(hold)s * interval '1 second'
where name = %(name)s
  and taken_by = %(worker_id)s
returning name

-- Gives a chore back, with what became of it. It comes again after its interval, or after
-- `at_most` seconds if that is sooner.
-- name: finish_chore
update pgqueue.chores
set
  due_at = pgqueue.clock_now() + least(every, %(at_most)s::double precision * interval '1 second'),
  taken_until = null,
  taken_by = null,
  last_run_at = pgqueue.clock_now(),
  last_seconds = %(seconds)s,
  last_error = %(error)s
where name = %(name)s
  and taken_by = %(worker_id)s
returning name

-- Lets a chore come now.
-- name: hasten_chore
update pgqueue.chores
set due_at = pgqueue.clock_now()
where name = %(name)s
  and due_at > pgqueue.clock_now()
returning name

-- The chore "sweep": what nothing points to any more, 1000 rows a statement.

-- Which of the statements below may find something; mostly none. Scalars in the order of an index, as
-- in take_chore.
-- name: look_for_old
with ends as materialized (
  select
    pgqueue.clock() - interval '1 day' - (
      select coalesce(max(keep), interval '0')
      from pgqueue.retention
      where state_group <> 'windows'
    ) as of_jobs,
    pgqueue.clock() - (
      select keep
      from pgqueue.retention
      where state_group = 'windows'
    ) as of_windows
)
select array_remove(
  array[
    case when (select min(until) from pgqueue.unique_keys) <= pgqueue.clock()
      then 'sweep_unique_keys' end,
    case when (select min(finished_at) from pgqueue.workflows) < of_jobs
      then 'sweep_workflows' end,
    case when (select min(at) from pgqueue.audit_log)
        < pgqueue.clock() - %(audit_days)s * interval '1 day'
      then 'sweep_audit_log' end,
    case when (select min(delivered_at) from pgqueue.events)
        < pgqueue.clock() - %(event_days)s * interval '1 day'
      then 'sweep_events' end,
    case when (select at from pgqueue.job_logs order by id limit 1) < of_jobs
      then 'sweep_job_logs' end,
    case when (select min(job_id) from pgqueue.job_steps) is not null
      then 'sweep_job_steps' end,
    case when exists (
        select from pgqueue.job_steps where kind = 'wait' and finished_at is null
      )
      then 'sweep_waits' end,
    case when (select min(name) from pgqueue.limit_starts) is not null
      then 'sweep_limit_starts' end,
    case when (select min(name) from pgqueue.limit_turns) is not null
      then 'sweep_limit_turns' end,
    case when exists (
        select from pgqueue.limits where not declared and until < pgqueue.clock() - interval '1 day'
      )
      then 'sweep_limits' end,
    case when exists (
        select
        from pgqueue.schedules
        where (
          select window_start
          from pgqueue.windows
          where windows.schedule_id = schedules.id
          order by window_start
          limit 1
        ) < of_windows
      )
      then 'sweep_windows' end,
    case when exists (select from pgqueue.backfills where finished_at < of_windows)
      then 'sweep_backfills' end
  ],
  null
)
from ends

-- name: sweep_unique_keys
with old_keys as materialized (
  select ctid as tid
  from pgqueue.unique_keys
  where until <= pgqueue.clock()
  order by until
  limit 1000
  for update skip locked
)
delete from pgqueue.unique_keys
where ctid = any(array(select tid from old_keys))
returning job_id

-- name: sweep_audit_log
with old_entries as materialized (
  select ctid as tid
  from pgqueue.audit_log
  where at < pgqueue.clock() - %(audit_days)s * interval '1 day'
  order by at
  limit 1000
  for update skip locked
)
delete from pgqueue.audit_log
where ctid = any(array(select tid from old_entries))
returning id

-- Log lines of jobs that are gone: deleted by hand, or with a partition that somebody else dropped.
-- A walk in the order of writing that ends at the first line younger than any finished job may be.
-- Returns where the walk is and how many lines it deleted; no place means that it has ended.
-- name: sweep_job_logs
with
  old_lines as materialized (
    select ctid as tid, id, job_id
    from pgqueue.job_logs
    where id > %(after)s
      and id <= (
        select coalesce(max(id), 0)
        from (
          select id, at
          from pgqueue.job_logs
          where id > %(after)s
          order by id
          limit 1000
        ) as page
        where at < pgqueue.clock() - interval '1 day' - (
          select coalesce(max(keep), interval '0')
          from pgqueue.retention
          where state_group <> 'windows'
        )
      )
  ),
  deleted_lines as (
    delete from pgqueue.job_logs
    where ctid = any(array(
      select tid
      from old_lines
      where not exists (select from pgqueue.jobs where jobs.id = old_lines.job_id)
        and not exists (
          select from pgqueue.finished_jobs where finished_jobs.id = old_lines.job_id
        )
    ))
    returning id
  )
select
  (select max(id) from old_lines) as place,
  (select count(*) from deleted_lines) as deleted
