-- With statistics that are old the planner would read a table of a million rows whole; for the
-- transaction of the next statement.
-- name: count_by_index
select
  set_config('enable_seqscan', 'off', true),
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
