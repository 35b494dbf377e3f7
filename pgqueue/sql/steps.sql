-- What a job's handler has behind it, and the events that it waits for. What a handler writes is
-- fenced: the job's row is locked under its lease first, and no lease means no row.

-- What is kept of a job. A sleep is over when its time has come, a wait when it has ended.
-- name: find_steps
select
  kind, name, result,
  coalesce(
    case when kind = 'sleep' then wake_at <= pgqueue.clock() else finished_at is not null end,
    false
  ) as is_over,
  event_id is not null as has_come
from pgqueue.job_steps
where job_id = %(id)s

-- Keeps the result of a step, and returns what jsonb made of it. No row: the lease was lost. Where
-- one stands already, that one stays: its commit went unheard.
-- name: keep_step
with held as materialized (
  select id, attempt
  from pgqueue.jobs
  where id = %(id)s
    and lease = %(lease)s
  for update
)
insert into pgqueue.job_steps (job_id, kind, name, attempt, finished_at, result)
select id, 'step', %(name)s, attempt, pgqueue.clock_now(), %(result)s::jsonb
from held
on conflict (job_id, kind, name) do update
set name = excluded.name
returning result

-- Writes down until when a job sleeps, once; returns the seconds that are left. No row: no lease.
-- name: open_sleep
with
  held as materialized (
    select id, attempt
    from pgqueue.jobs
    where id = %(id)s
      and lease = %(lease)s
    for update
  ),
  opened as (
    insert into pgqueue.job_steps (job_id, kind, name, attempt, wake_at)
    select
      id, 'sleep', %(name)s, attempt,
      coalesce(
        %(until)s::timestamptz,
        pgqueue.clock_now() + %(seconds)s::double precision * interval '1 second'
      )
    from held
    on conflict (job_id, kind, name) do update
    set name = excluded.name
    returning wake_at
  )
select extract(epoch from wake_at - pgqueue.clock_now())::double precision
from opened

-- Writes down for what a job waits, once. Committed before take_event looks: then either that look
-- sees the event, or whoever delivers it sees the wait. Returns what was written down the first
-- time. No row: no lease.
-- name: open_wait
with held as materialized (
  select id, attempt
  from pgqueue.jobs
  where id = %(id)s
    and lease = %(lease)s
  for update
)
insert into pgqueue.job_steps (job_id, kind, name, attempt, wake_at, event, event_key)
select
  id, 'wait', %(name)s, attempt,
  pgqueue.clock_now() + %(timeout)s::double precision * interval '1 second',
  %(event)s,
  %(key)s
from held
on conflict (job_id, kind, name) do update
set name = excluded.name
returning event, event_key

-- Gives a wait the oldest event since the job was created that the job has not had yet, if any.
-- name: take_event
with
  held as materialized (
    select id, created_at
    from pgqueue.jobs
    where id = %(id)s
      and lease = %(lease)s
    for update
  ),
  came as materialized (
    select first_one.id, first_one.payload
    from held
    -- Lateral with a limit: as a join it would read all events of the key, of a month.
    cross join lateral (
      select events.id, events.payload
      from pgqueue.events
      where events.name = %(event)s
        and events.key = %(key)s
        and events.created_at >= held.created_at
        and not exists (
          select
          from pgqueue.job_steps as had
          where had.job_id = held.id
            and had.event_id = events.id
        )
      order by events.created_at, events.id
      limit 1
    ) as first_one
  )
update pgqueue.job_steps
set finished_at = pgqueue.clock_now(), event_id = came.id, result = came.payload
from came
where job_steps.job_id = %(id)s
  and job_steps.kind = 'wait'
  and job_steps.name = %(name)s
  and job_steps.finished_at is null

-- How a wait stands: over, the event has come, what it carried, the seconds left (null: no end).
-- name: read_wait
select
  finished_at is not null as is_over,
  event_id is not null as has_come,
  result,
  extract(epoch from wake_at - pgqueue.clock_now())::double precision as seconds_left
from pgqueue.job_steps
where job_id = %(id)s
  and kind = 'wait'
  and name = %(name)s

-- Ends a wait whose time is over, unless its event has come meanwhile.
-- name: close_wait
with held as materialized (
  select id
  from pgqueue.jobs
  where id = %(id)s
    and lease = %(lease)s
  for update
)
update pgqueue.job_steps
set finished_at = pgqueue.clock_now()
from held
where job_steps.job_id = held.id
  and job_steps.kind = 'wait'
  and job_steps.name = %(name)s
  and job_steps.finished_at is null

-- In the transaction that puts waiting jobs back, after it: whose event was delivered while its
-- handler was being left runs now. The one who delivers takes the job's row first, so that this
-- statement sees what was delivered before, and finds the others' rows ours.
-- name: wake_delivered
update pgqueue.jobs
set run_at = pgqueue.clock_now()
from unnest(%(ids)s::bigint[], %(names)s::text[]) as parked (job_id, name)
cross join lateral (
  select job_steps.job_id
  from pgqueue.job_steps
  where job_steps.job_id = parked.job_id
    and job_steps.kind = 'wait'
    and job_steps.name = parked.name
    and job_steps.finished_at is not null
  limit 1
) as delivered
where jobs.id = delivered.job_id
  and jobs.state in ('queued', 'blocked')
  and jobs.run_at > pgqueue.clock_now()

-- name: emit_event
select pgqueue.emit(%(name)s, %(key)s, %(payload)s::jsonb, %(notify)s)

-- See the function.
-- name: deliver_events
select woken, delivered, has_more, has_waiters
from pgqueue.deliver_events()

-- What people see of a job's steps, in the order in which they were begun.
-- name: show_steps
select kind, name, attempt, created_at, finished_at, result, wake_at, event, event_key, event_id
from pgqueue.job_steps
where job_id = %(id)s
order by created_at, name
limit %(n)s

-- For what a job that is not due sleeps or waits: the step it came to last.
-- name: find_open_step
select kind, name, wake_at, event, event_key
from pgqueue.job_steps
where job_id = %(id)s
  and kind in ('sleep', 'wait')
  and finished_at is null
  and (kind = 'wait' or wake_at > pgqueue.clock())
order by created_at desc
limit 1

-- As clean_logs, for the steps of a day's jobs.
-- name: clean_steps
with
  page as materialized (
    select id
    from pgqueue.finished_jobs
    where state = any(%(states)s::text[])
      and finished_at >= %(day)s::date::timestamp at time zone 'UTC'
      and finished_at < (%(day)s::date + 1)::timestamp at time zone 'UTC'
      and id > %(after)s
    order by id
    limit 1000
  ),
  deleted_steps as (
    delete from pgqueue.job_steps
    where ctid = any(array(
      select step.tid
      from page
      cross join lateral (
        select job_steps.ctid as tid
        from pgqueue.job_steps
        where job_steps.job_id = page.id
        limit 5000
      ) as step
      limit 5000
    ))
    returning job_id
  )
select
  (select max(id) from page) as place,
  (select count(*) from deleted_steps) as deleted

-- Steps of jobs that are gone: with a partition that somebody else dropped, or deleted by hand. A
-- walk by job that looks only at steps older than any finished job may be; returns where it is and
-- how many it deleted; no place means that it has ended.
-- name: sweep_job_steps
with
  page as materialized (
    select job_id, created_at
    from pgqueue.job_steps
    where job_id > %(after)s
    order by job_id
    limit 1000
  ),
  deleted_steps as (
    delete from pgqueue.job_steps
    where job_id = any(array(
      select old.job_id
      from (
        select distinct page.job_id
        from page
        where page.created_at < pgqueue.clock() - interval '1 day' - (
          select coalesce(max(keep), interval '0')
          from pgqueue.retention
          where state_group <> 'windows'
        )
      ) as old
      where not exists (select from pgqueue.jobs where jobs.id = old.job_id)
        and not exists (select from pgqueue.finished_jobs where finished_jobs.id = old.job_id)
    ))
    returning job_id
  )
select
  (select max(job_id) from page) as place,
  (select count(*) from deleted_steps) as deleted

-- Open waits of jobs that have ended: each look for events would count them, until retention comes.
-- One that a retried job opens again just now is a new row version, which this does not see.
-- name: sweep_waits
with dead_waits as materialized (
  select ctid as tid
  from pgqueue.job_steps
  where kind = 'wait'
    and finished_at is null
    -- Whatever the statistics say, a look at an index for each wait, and never at all jobs.
    and (select true from pgqueue.jobs where jobs.id = job_steps.job_id limit 1) is null
  limit 1000
  for update skip locked
)
delete from pgqueue.job_steps
where ctid = any(array(select tid from dead_waits))
returning job_id

-- name: sweep_events
with old_events as materialized (
  select ctid as tid
  from pgqueue.events
  where delivered_at < pgqueue.clock() - %(event_days)s * interval '1 day'
  order by delivered_at
  limit 1000
  for update skip locked
)
delete from pgqueue.events
where ctid = any(array(select tid from old_events))
returning id
