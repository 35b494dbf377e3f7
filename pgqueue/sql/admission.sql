-- Limited jobs: who is let in, who is claimed then, who holds the order of others.

-- One pass of admission; see the function.
-- name: admit
select ran, admitted, queues, lowest_live, reached, wait, moving, unclaimed, unseen
from pgqueue.admit(
  named => %(named)s::text[],
  lowest => %(lowest)s,
  after => %(after)s,
  alive => %(alive)s
)

-- Lines after the name `after` that may have room of which nobody told: who ended their job was killed
-- before his pass. A pass looks at 64 lines and all that holds them up; this at 2000, an entry or two of
-- each: an order whose next job stands in the line, another limit that no job holds. Gives 64 of them
-- at most, and how far it came; null: at the end.
-- name: find_free_lines
with recursive
  places as (
    (
      select blocked_on collate "C" as name, 1 as nth
      from pgqueue.jobs
      where blocked_on collate "C" > %(after)s
      order by blocked_on collate "C"
      limit 1
    )
    union all
    select following.name, places.nth + 1
    from places
    cross join lateral (
      select blocked_on collate "C" as name
      from pgqueue.jobs
      where blocked_on collate "C" > places.name
      order by blocked_on collate "C"
      limit 1
    ) as following
    where places.nth < 2000
  ),
  free_lines as (
    select lines.name, lines.nth
    -- Back to the collation of the columns: in another no index of theirs fits.
    from (select name collate "default" as name, nth from places) as lines
    where not starts_with(lines.name, '@')
      and case
        when starts_with(lines.name, 'ordered:') then (
          select jobs.blocked_on
          from pgqueue.jobs
          where jobs.order_name = lines.name
          order by jobs.scheduled_at, jobs.id
          limit 1
        ) = lines.name
        else lines.name not in (
          select unnest(limits)
          from pgqueue.jobs
          where admitted_seq >= %(lowest)s
        )
      end
      and not exists (select from pgqueue.order_holds where order_holds.name = lines.name)
    order by lines.nth
    limit 64
  )
select
  coalesce((select array_agg(name order by nth) from free_lines), '{}'),
  case
    when (select count(*) from free_lines) = 64
      then (select name from free_lines order by nth desc limit 1)
    else (select name from places where nth = 2000)
  end

-- Claims admitted jobs: as claim_jobs, and it writes down the starts of those whose limits have a
-- rate. Few rows: never more are admitted than the limits let in.
-- name: claim_limited
with
  locked_jobs as materialized (
    select jobs.ctid as tid
    from pgqueue.jobs
    where jobs.admitted_seq >= %(lowest)s
      and jobs.lease is null
      and (cardinality(%(queues)s::text[]) = 0 or jobs.queue = any(%(queues)s::text[]))
      and jobs.task = any(%(tasks)s::text[])
      and (not jobs.suspect or %(suspects)s)
      and not coalesce(
        (
          select queues.paused
          from pgqueue.queues
          where queues.name = jobs.queue
        ),
        false
      )
    order by jobs.priority desc, jobs.admitted_seq
    limit %(n)s
    for update skip locked
  ),
  claimed_jobs as (
    update pgqueue.jobs
    set
      state = 'running',
      attempt = attempt + 1,
      lease = %(lease)s,
      worker_id = %(worker_id)s,
      started_at = pgqueue.clock_now()
    where ctid = any(array(select tid from locked_jobs))
    returning
      id, task, queue, priority, payload, tenant, tags, unique_key, run_at, scheduled_at, attempt,
      max_attempts, lease, worker_id, started_at, created_at, timeout, headers, expires_at,
      cancel_requested_at, crashes, suspect, workflow_id, limits
  ),
  recorded as (
    insert into pgqueue.limit_starts (name, at)
    select names.name, claimed_jobs.started_at
    from claimed_jobs
    cross join unnest(claimed_jobs.limits) as names (name)
    cross join pgqueue.limit_rule(names.name) as rule
    where rule.starts is not null
  )
select
  (select count(*) from locked_jobs) as locked,
  claimed_jobs.id, claimed_jobs.task, claimed_jobs.queue, claimed_jobs.priority,
  claimed_jobs.payload::text, claimed_jobs.tenant, nullif(claimed_jobs.tags, '{}'),
  claimed_jobs.unique_key, claimed_jobs.run_at, claimed_jobs.scheduled_at, claimed_jobs.attempt,
  claimed_jobs.max_attempts, claimed_jobs.lease, claimed_jobs.worker_id, claimed_jobs.started_at,
  claimed_jobs.created_at, claimed_jobs.timeout, nullif(claimed_jobs.headers, '{}')::text,
  claimed_jobs.expires_at, claimed_jobs.cancel_requested_at, claimed_jobs.crashes,
  claimed_jobs.suspect, claimed_jobs.workflow_id, claimed_jobs.limits
from (values (true)) as always (one)
left join claimed_jobs on true

-- Holds the orders of jobs that have just failed for good, where their rule says so.
-- name: hold_orders
insert into pgqueue.order_holds as held (name, job_id, finished_at)
select ended.limits[1], ended.id, ended.finished_at
from pgqueue.finished_jobs as ended
cross join lateral pgqueue.limit_rule(ended.limits[1]) as rule
where ended.id = any(%(ids)s::bigint[])
  and ended.state = 'failed'
  and ended.finished_at > pgqueue.clock() - interval '1 hour'
  and starts_with(ended.limits[1], 'ordered:')
  and rule.on_failure = 'hold'
on conflict (name) do update
set job_id = excluded.job_id, finished_at = excluded.finished_at
