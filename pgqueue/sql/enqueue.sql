-- Insert jobs, one at a time and in bulk, and tell the workers.

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
returning
  id, run_at, scheduled_at, created_at,
  case
    when %(channel)s::text is not null
    then (select count(*) from pg_notify(%(channel)s::text, queue))
  end

-- The same for a job that leaves the other columns to their defaults, for an eighth less in all.
-- name: insert_plain_job
insert into pgqueue.jobs (task, queue, payload, priority, max_attempts)
values (%(task)s, %(queue)s, %(payload)s::jsonb, %(priority)s, %(max_attempts)s)
returning id, run_at, scheduled_at, created_at

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
  unique_wait => %(unique_wait)s * interval '1 second',
  limits => %(limits)s::text[]
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
    %(unique_waits)s::double precision[],
    %(limits)s::text[]
  ) with ordinality as asked (
    task, queue, payload, priority, run_at, delay, tenant, tags, unique_key, unique_mode,
    unique_for, max_attempts, timeout, expires_at, headers, unique_wait, limits, place
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
  unique_wait => asked.unique_wait * interval '1 second',
  limits => asked.limits::text[]
) as made
order by asked.place

-- Inserts many jobs that no unique key and no quota concerns; returns their ids in the order given.
-- name: insert_jobs
with
  new_jobs as materialized (
    select
      -- A subselect, so that the sequence's name is looked up once and not for each row.
      nextval((select pg_get_serial_sequence('pgqueue.jobs', 'id')::regclass)) as id,
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

-- Inserts jobs that differ in their payloads only, and that no unique key and no quota concerns;
-- returns their ids in the order given.
-- name: insert_alike
insert into pgqueue.jobs (
  task, queue, payload, priority, run_at, scheduled_at, tags, max_attempts, timeout, expires_at,
  headers
)
select
  %(task)s,
  %(queue)s,
  given.payload::jsonb,
  %(priority)s,
  greatest(asked.run_at, pgqueue.clock_now()),
  asked.run_at,
  %(tags)s::text[],
  %(max_attempts)s,
  %(timeout)s::double precision,
  %(expires_at)s::timestamptz,
  %(headers)s::jsonb
from
  (
    select coalesce(
      %(run_at)s::timestamptz,
      pgqueue.clock_now() + %(delay)s * interval '1 second'
    ) as run_at
    -- Evaluated once, not in each place that names it.
    offset 0
  ) as asked,
  unnest(%(payloads)s::text[]) with ordinality as given (payload, place)
order by given.place
returning id

-- Ids for `n` jobs that are copied in next, and when they are due. As a range where nobody else took
-- one in between, which is the rule. A transaction of its own waits for no disk: that of the jobs
-- does, and whatever was written before it is safe with it.
-- name: take_ids
select
  min(id) as first_id,
  case when max(id) - min(id) + 1 <> count(*) then array_agg(id) end as ids,
  coalesce(
    %(run_at)s::timestamptz,
    pgqueue.clock_now() + %(delay)s * interval '1 second'
  ) as scheduled_at,
  pgqueue.clock_now() as now,
  case when %(is_alone)s then set_config('synchronous_commit', 'off', true) end
from (
  -- A subselect: to look up the sequence's name for each row took ten times as long as its id.
  select nextval((select pg_get_serial_sequence('pgqueue.jobs', 'id')::regclass)) as id
  from generate_series(1, %(n)s)
) as taken

-- Inserts many jobs that no unique key and no quota concerns, three times as fast as insert_jobs.
-- The lines are bytes of ours, whatever the encoding of the caller's connection.
-- name: copy_jobs
copy pgqueue.jobs (
  payload, id, task, queue, priority, run_at, scheduled_at, tags, max_attempts, timeout,
  expires_at, headers
)
from stdin with (encoding 'utf8')

-- The same for jobs that leave the other columns to their defaults, which halves the server's work.
-- name: copy_plain_jobs
copy pgqueue.jobs (
  payload, id, task, queue, priority, max_attempts
)
from stdin with (encoding 'utf8')

-- A hint that a queue has work; see engine/notify.py.
-- name: notify
select pg_notify(%(channel)s, %(queue)s)

-- The same as a transaction of its own that waits for no disk: the setting ends with it.
-- name: notify_apart
select
  set_config('synchronous_commit', 'off', true),
  pg_notify(%(channel)s, %(queue)s),
  -- Told to the producer by the way; most queues have no bound.
  (
    select array[max_queued, pgqueue.backlog(name, max_queued)]
    from pgqueue.queues
    where name = %(queue)s
      and max_queued is not null
  ) as fill
