-- With statistics that are old the planner would read a table of a million rows whole; for the
-- transaction of the next statement.
-- name: count_by_index
select
  set_config('enable_seqscan', 'off', true),
  set_config('jit', 'off', true),
  set_config('enable_bitmapscan', 'off', true),
  set_config('enable_sort', 'off', true)

-- For the worker's regular line: what waits, and what comes next. Counts 10,000 queued jobs at most;
-- beyond that it takes what the last vacuum or analyze saw in the index of queued jobs.
-- name: find_statistics
select
  case
    when counted.queued <= 10000 then counted.queued
    else greatest(counted.queued, estimated.queued)
  end as queued,
  counted.queued <= 10000 as queued_is_exact,
  (select count(*) from pgqueue.schedules where enabled) as schedules,
  array(
    select name
      || ' at '
      || to_char(next_run_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    from pgqueue.schedules
    where enabled
    order by next_run_at
    limit 3
  ) as next_runs
from (
  select count(*) as queued
  from (
    select
    from pgqueue.jobs
    where state = 'queued'
    order by queue, priority, run_at, id
    limit 10001
  ) as first_queued
) as counted
cross join (
  select reltuples::bigint as queued
  from pg_class
  where oid = 'pgqueue.jobs_claim'::regclass
) as estimated

-- Tasks with due jobs that no live worker of their queue knows, the most first. As the view
-- unknown_tasks, at a bounded cost: of each lane it looks at the first 1,000 due jobs.
-- name: find_unknown_tasks
with recursive
  lanes as (
    (
      select queue, priority
      from pgqueue.jobs
      where state = 'queued'
      order by queue, priority
      limit 1
    )
    union all
    select next_lane.queue, next_lane.priority
    from lanes
    cross join lateral (
      select queue, priority
      from pgqueue.jobs
      where state = 'queued'
        and (queue, priority) > (lanes.queue, lanes.priority)
      order by queue, priority
      limit 1
    ) as next_lane
  ),
  due as (
    select lanes.queue, first_due.task, count(*) as jobs
    from lanes
    cross join lateral (
      select task
      from pgqueue.jobs
      where jobs.state = 'queued'
        and jobs.queue = lanes.queue
        and jobs.priority = lanes.priority
        and jobs.run_at <= pgqueue.clock()
      order by jobs.run_at, jobs.id
      limit 1000
    ) as first_due
    where cardinality(%(queues)s::text[]) = 0
      or lanes.queue = any(%(queues)s::text[])
    group by lanes.queue, first_due.task
    union all
    select set_aside.queue, set_aside.task, count(*) as jobs
    from (
      select queue, task
      from pgqueue.jobs
      where blocked_on collate "C" > '@worker:'
        and blocked_on collate "C" < '@worker;'
        and (cardinality(%(queues)s::text[]) = 0 or queue = any(%(queues)s::text[]))
      limit 1000
    ) as set_aside
    group by set_aside.queue, set_aside.task
  )
select due.task, sum(due.jobs)::bigint as jobs
from due
where not exists (
  select
  from pgqueue.workers
  where workers.heartbeat_at > pgqueue.clock() - interval '15 seconds'
    and (cardinality(workers.queues) = 0 or due.queue = any(workers.queues))
    and due.task = any(workers.tasks)
)
group by due.task
order by jobs desc, due.task
limit 20
