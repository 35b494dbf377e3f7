-- Limits: what is declared and set, who holds them and who waits.

-- What the code declares; the same again is no change.
-- name: put_limits
insert into pgqueue.limits as known (
  name, declared, pattern, running, starts, per, on_failure, set_by
)
select asked.name, true, asked.pattern, asked.running, asked.starts, asked.per, asked.on_failure, 'code'
from unnest(
  %(names)s::text[],
  %(patterns)s::text[],
  %(runnings)s::integer[],
  %(startses)s::integer[],
  %(pers)s::double precision[],
  %(on_failures)s::text[]
) as asked (name, pattern, running, starts, per, on_failure)
where not exists (
  select
  from pgqueue.limits as same
  where same.declared
    and same.name = asked.name
    and (same.running, same.starts, same.per, same.on_failure)
      is not distinct from (asked.running, asked.starts, asked.per, asked.on_failure)
)
order by asked.name
on conflict (name, declared) do update
set
  pattern = excluded.pattern,
  running = excluded.running,
  starts = excluded.starts,
  per = excluded.per,
  on_failure = excluded.on_failure,
  set_at = pgqueue.clock_now()
where (known.running, known.starts, known.per, known.on_failure)
  is distinct from (excluded.running, excluded.starts, excluded.per, excluded.on_failure)

-- Locks only what it changes, in order: of two workers that start at once none waits in a circle.
-- name: put_task_limits
insert into pgqueue.task_limits as known (task, names)
select asked.task, asked.names::text[]
from unnest(%(tasks)s::text[], %(names)s::text[]) as asked (task, names)
where not exists (
  select
  from pgqueue.task_limits as same
  where same.task = asked.task
    and same.names = asked.names::text[]
)
order by asked.task
on conflict (task) do update
set names = excluded.names, set_at = pgqueue.clock_now()
where known.names <> excluded.names

-- A transaction of its own: one version's limited task may be another's that lost its limits.
-- name: drop_task_limits
delete from pgqueue.task_limits
where ctid = any(array(
  select ctid
  from pgqueue.task_limits
  where task = any(%(tasks)s::text[])
  order by task
  for update
))

-- What an operator sets goes before what the code declares, for as long as it holds. A limit of a
-- queue concerns all of its jobs. `seconds` null: until it is taken back.
-- name: set_limit
with
  put as (
    insert into pgqueue.limits as known (
      name, declared, running, starts, per, until, set_by, set_at
    )
    values (
      %(name)s, false, %(running)s::integer, %(starts)s::integer,
      %(per)s::double precision,
      pgqueue.clock_now() + %(seconds)s::double precision * interval '1 second',
      %(who)s, pgqueue.clock_now()
    )
    on conflict (name, declared) do update
    set
      running = excluded.running,
      starts = excluded.starts,
      per = excluded.per,
      until = excluded.until,
      set_by = excluded.set_by,
      set_at = excluded.set_at
    returning name, running, starts, per, until
  ),
  its_queue as (
    insert into pgqueue.queues as known (name, limited)
    select %(queue)s::text, true
    where %(queue)s::text is not null
    on conflict (name) do update
    set limited = true
    where not known.limited
  )
insert into pgqueue.audit_log (who, source, action, target, details)
select
  %(who)s, %(source)s, 'limit', 'limit ' || name,
  jsonb_strip_nulls(
    jsonb_build_object('running', running, 'starts', starts, 'per', per, 'until', until)
  )
from put

-- name: reset_limit
with
  forgotten as (
    -- Kept for a day, so that check knows since when the old figure holds again.
    update pgqueue.limits
    set until = pgqueue.clock_now()
    where name = %(name)s
      and not declared
      and (until is null or until > pgqueue.clock())
    returning name
  ),
  its_queue as (
    update pgqueue.queues
    set limited = false
    where name = %(queue)s::text
      and limited
  )
insert into pgqueue.audit_log (who, source, action, target)
select %(who)s, %(source)s, 'limit-reset', 'limit ' || name
from forgotten
returning id

-- What is known by a name; for the answer to somebody who sets it.
-- name: find_limit
select
  exists (
    select
    from pgqueue.limits
    where declared
      and (name = %(name)s or %(name)s::text like pattern)
  ) as is_declared,
  rule.running, rule.starts, rule.per, rule.until
from pgqueue.limit_rule(%(name)s) as rule

-- With the job that those in an order wait for: one that failed for good, one that runs, or the first
-- where that waits for something else. Such an order has no free slot.
-- name: list_limits
select
  name, running, starts, per, on_failure, used,
  case when held.job_id is null then free else 0 end as free,
  started, waiting, until,
  held.job_id as held_by
from (
  select name, running, starts, per, on_failure, used, free, started, waiting, until
  from pgqueue.limit_usage
  where %(name)s::text is null or name = %(name)s
  order by waiting desc, name
  limit %(n)s
) as listed
cross join lateral (
  select
    case
      when starts_with(name, 'ordered:') then coalesce(
        (
          select holds.job_id
          from pgqueue.order_holds as holds
          join pgqueue.finished_jobs on finished_jobs.id = holds.job_id
            and finished_jobs.finished_at = holds.finished_at
            and finished_jobs.state = 'failed'
          where holds.name = listed.name
        ),
        (
          select case when first_one.blocked_on is distinct from listed.name then first_one.id end
          from (
            select id, blocked_on
            from pgqueue.jobs
            where jobs.order_name = listed.name
            order by scheduled_at, id
            limit 1
          ) as first_one
        )
      )
    end as job_id
) as held
order by waiting desc, name

-- Limits of which more jobs hold a slot than there are, and have since it was set: one that was
-- lowered is not exceeded by those that it had let in before.
-- name: find_exceeded
select held.name, coalesce(rule.running, 1), held.jobs, held.ids
from (
  select
    names.name, count(*) as jobs, max(jobs.run_at) as last_admission,
    array_agg(jobs.id order by jobs.admitted_seq) as ids
  from pgqueue.jobs
  cross join unnest(jobs.limits) as names (name)
  where jobs.admitted_seq is not null
  group by names.name
) as held
cross join lateral pgqueue.limit_rule(held.name) as rule
where held.jobs > case when starts_with(held.name, 'ordered:') then 1 else rule.running end
  and held.last_admission > coalesce(rule.since, '-infinity')
order by held.name

-- Up to 200 limits after the name `after` whose starts are kept: an entry of the index for each.
-- name: list_started_limits
with recursive names as (
  (
    select name, 1 as nth
    from pgqueue.limit_starts
    where name > %(after)s
    order by name
    limit 1
  )
  union all
  select following.name, names.nth + 1
  from names
  cross join lateral (
    select name
    from pgqueue.limit_starts
    where limit_starts.name > names.name
    order by name
    limit 1
  ) as following
  where names.nth < 200
)
select name
from names
order by nth

-- Spans of `per` seconds with more starts than their limit allows, of each limit the one in which these
-- came fastest, as long as starts are kept. Looks at each start once.
-- name: find_exceeded_rates
with
  spans as (
    select
      begun.name, begun.at, rule.starts, rule.per, rule.since,
      begun.at - lag(begun.at, rule.starts) over (partition by begun.name order by begun.at) as took
    from unnest(%(names)s::text[]) as names (name)
    cross join lateral pgqueue.limit_rule(names.name) as rule
    join pgqueue.limit_starts as begun on begun.name = names.name
    where rule.starts is not null
  ),
  fastest as (
    select distinct on (name) name, at, starts, per
    from spans
    where took < per * interval '1 second'
      and at - per * interval '1 second' > coalesce(since, '-infinity')
    order by name, took
  )
select
  fastest.name, fastest.starts as allowed, fastest.per,
  (
    select count(*)
    from pgqueue.limit_starts as others
    where others.name = fastest.name
      and others.at <= fastest.at
      and others.at > fastest.at - fastest.per * interval '1 second'
  ) as found
from fastest
order by fastest.name

-- Where a blocked job stands: who holds the slots of its limit, and how many wait before it, in the
-- line of its own tenant and in those of others; in an order wherever these wait, and who of them is
-- first. Counts 10,000 and no further.
-- name: explain_line
select
  rule.running, rule.starts, rule.per, rule.until,
  array(
    select holders.id
    from pgqueue.jobs as holders
    where holders.admitted_seq is not null
      and jobs.blocked_on = any(holders.limits)
    order by holders.admitted_seq
    limit 20
  ) as holders,
  (
    select count(*)
    from (
      select
      from pgqueue.jobs as others
      where others.blocked_on collate "C" = jobs.blocked_on
        and not starts_with(jobs.blocked_on, 'ordered:')
        and coalesce(others.tenant, '') = coalesce(jobs.tenant, '')
        and (-others.priority, others.run_at, others.id)
          < (-jobs.priority, jobs.run_at, jobs.id)
      union all
      select
      from pgqueue.jobs as others
      where others.order_name = jobs.blocked_on
        and (others.scheduled_at, others.id) < (jobs.scheduled_at, jobs.id)
        and others.admitted_seq is null
      limit 10000
    ) as before
  ) as before,
  (
    select count(*)
    from (
      select
      from pgqueue.jobs as others
      where others.blocked_on collate "C" = jobs.blocked_on
        and coalesce(others.tenant, '') <> coalesce(jobs.tenant, '')
      limit 10000
    ) as other_tenants
  ) as of_others,
  held.job_id as held_by,
  jobs.tenant,
  (
    select others.id
    from pgqueue.jobs as others
    where others.order_name = jobs.blocked_on
    order by others.scheduled_at, others.id
    limit 1
  ) as first
from pgqueue.jobs
cross join lateral pgqueue.limit_rule(jobs.blocked_on) as rule
left join pgqueue.order_holds as held on held.name = jobs.blocked_on
where jobs.id = %(id)s
  and jobs.blocked_on is not null

-- The chore "sweep": starts that no rate asks for any more, and turns of limits nobody waits for.

-- Starts of these limits, 5000 at most; each limit's are kept for twice its own period: one of a day
-- would else keep those of all.
-- name: sweep_limit_starts
with old_starts as materialized (
  select old.tid
  from unnest(%(names)s::text[]) as names (name)
  cross join lateral pgqueue.limit_rule(names.name) as rule
  cross join lateral (
    select ctid as tid
    from pgqueue.limit_starts
    where limit_starts.name = names.name
      and limit_starts.at < pgqueue.clock()
        - greatest(interval '10 minutes', 2 * rule.per * interval '1 second')
    order by at
    limit 5000
  ) as old
  limit 5000
)
delete from pgqueue.limit_starts
where ctid = any(array(select tid from old_starts))
returning name

-- name: sweep_limit_turns
with old_turns as materialized (
  select ctid as tid
  from pgqueue.limit_turns
  where at < pgqueue.clock() - interval '1 day'
  limit 1000
  for update skip locked
)
delete from pgqueue.limit_turns
where ctid = any(array(select tid from old_turns))
returning name

-- What an operator set and what is over for a day; a queue without a limit is an ordinary one again.
-- name: sweep_limits
with
  old_limits as (
    delete from pgqueue.limits
    where not declared
      and until < pgqueue.clock() - interval '1 day'
    returning name
  ),
  free_queues as (
    update pgqueue.queues
    set limited = false
    where limited
      and 'queue:' || name in (select name from old_limits)
  )
select name
from old_limits
