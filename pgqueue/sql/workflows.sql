-- Workflows: jobs that wait for other jobs. Bring them in, and draw the consequences of endings.

-- Ids for so many nodes, in order.
-- name: take_node_ids
select array(
  select nextval(pg_get_serial_sequence('pgqueue.jobs', 'id'))
  from generate_series(1, %(n)s)
)

-- name: insert_workflow
insert into pgqueue.workflows (name, open_job_id)
values (%(name)s, %(open_job_id)s)
returning id

-- Inserts jobs as nodes of a workflow. One with a parent to wait for is `waiting`.
-- name: insert_nodes
with
  new_nodes as materialized (
    select
      asked.*,
      coalesce(run_at, pgqueue.clock_now() + delay * interval '1 second') as due_at
    from unnest(
      %(ids)s::bigint[],
      %(names)s::text[],
      %(groups)s::text[],
      %(parents_failed)s::text[],
      %(parents_cancelled)s::text[],
      %(waits_for)s::bigint[],
      %(tasks)s::text[],
      %(queues)s::text[],
      %(payloads)s::text[],
      %(priorities)s::smallint[],
      %(run_ats)s::timestamptz[],
      %(delays)s::double precision[],
      %(tenants)s::text[],
      %(tags)s::text[],
      %(max_attempts)s::integer[],
      %(timeouts)s::double precision[],
      %(expires_ats)s::timestamptz[],
      %(headers)s::text[]
    ) as asked (
      id, name, group_name, parent_failed, parent_cancelled, waits_for, task, queue, payload,
      priority, run_at, delay, tenant, tags, max_attempts, timeout, expires_at, headers
    )
  ),
  inserted_jobs as (
    insert into pgqueue.jobs (
      id, task, queue, payload, priority, limits, state, blocked_on, run_at, scheduled_at, tenant,
      tags, max_attempts, timeout, expires_at, headers, workflow_id
    )
    select
      id, task, queue, payload, priority, limits,
      case when waits_for is null then pgqueue.ready_state(limits) else 'waiting' end,
      case when waits_for is null then pgqueue.ready_on(limits) end,
      greatest(due_at, pgqueue.clock_now()),
      due_at, tenant, tags::text[], max_attempts, timeout, expires_at, headers::jsonb,
      %(workflow_id)s
    from (
      select
        id, task, queue, payload::jsonb as payload, priority, waits_for, due_at, tenant, tags,
        max_attempts, timeout, expires_at, headers,
        pgqueue.limits_of(task, queue, tenant, payload::jsonb) as limits
      from new_nodes
      offset 0
    ) as limited
    order by id
  )
insert into pgqueue.workflow_nodes (
  job_id, workflow_id, name, group_name, task, parent_failed, parent_cancelled, waits_for
)
select id, %(workflow_id)s, name, group_name, task, parent_failed, parent_cancelled, waits_for
from new_nodes
order by id

-- name: insert_dependencies
insert into pgqueue.job_dependencies (child_id, parent_id)
select child_id, parent_id
from unnest(%(children)s::bigint[], %(parents)s::bigint[]) as edge (child_id, parent_id)
on conflict do nothing

-- Who has more waiting than the quota allows, with these new ones. Approximate, as enqueue_v1 is.
-- name: find_used_quota
select asked.tenant, quota.max_waiting
from unnest(%(tenants)s::text[], %(counts)s::bigint[]) as asked (tenant, n)
cross join lateral (
  select max_waiting
  from pgqueue.quotas
  where quotas.tenant in (asked.tenant, '*')
  order by quotas.tenant = '*'
  limit 1
) as quota
where quota.max_waiting < asked.n + (
  select count(*)
  from (
    select
    from pgqueue.jobs
    where jobs.tenant = asked.tenant
      and jobs.state <> 'running'
    limit quota.max_waiting
  ) as waiting
)
limit 1

-- The workflows that something has been told of, from one on.
-- name: find_told_workflows
with recursive told as (
  (
    select workflow_id
    from pgqueue.workflow_news
    where workflow_id > %(after)s
    order by workflow_id
    limit 1
  )
  union all
  select following.workflow_id
  from told
  cross join lateral (
    select workflow_id
    from pgqueue.workflow_news
    where workflow_news.workflow_id > told.workflow_id
    order by workflow_id
    limit 1
  ) as following
)
select workflow_id
from told
limit %(n)s

-- A pass over workflows, in a transaction of its own. Its statements are apart on purpose: each sees
-- what was committed before the locks of those above it were given. First it locks the workflows; one
-- that another pass holds is left to it, or comes again.
-- name: lock_workflows
select id
from pgqueue.workflows
where id = any(%(ids)s::bigint[])
order by id
for no key update skip locked

-- What is told of the locked ones, from a place on: job by job how it ended, null while it is live.
-- Keeps that with its node, and what it gave if it has children. The look into finished_jobs is
-- bounded by when it was told, so that it takes two partitions and not all.
-- name: settle_nodes
with
  news as materialized (
    select workflow_id, id, job_id, at
    from pgqueue.workflow_news
    where workflow_id = any(%(ids)s::bigint[])
      and (workflow_id, id) > (%(after_workflow)s, %(after)s)
    order by workflow_id, id
    limit %(n)s
  ),
  endings as materialized (
    select
      told.job_id,
      coalesce(lately.state, ever.state, 'deleted') as outcome,
      coalesce(lately.result, ever.result) as result,
      coalesce(lately.started_at, ever.started_at) as started_at,
      coalesce(lately.finished_at, ever.finished_at) as finished_at
    from (
      select job_id, max(at) as at
      from news
      group by job_id
    ) as told
    left join lateral (
      select state, result, started_at, finished_at
      from pgqueue.finished_jobs
      where finished_jobs.id = told.job_id
        and finished_jobs.finished_at between told.at - interval '1 hour'
          and told.at + interval '1 hour'
      order by finished_at desc
      limit 1
    ) as lately on true
    left join lateral (
      select state, result, started_at, finished_at
      from pgqueue.finished_jobs
      where lately.state is null
        and finished_jobs.id = told.job_id
      order by finished_at desc
      limit 1
    ) as ever on true
    where not exists (
      select
      from pgqueue.jobs
      where jobs.id = told.job_id
    )
  ),
  settled_nodes as (
    update pgqueue.workflow_nodes as nodes
    set
      outcome = endings.outcome,
      result = case
        when exists (
          select
          from pgqueue.job_dependencies
          where job_dependencies.parent_id = nodes.job_id
        )
        then endings.result
      end,
      started_at = endings.started_at,
      finished_at = endings.finished_at,
      waits_for = null
    from endings
    where nodes.job_id = endings.job_id
      and nodes.outcome is null
  )
select news.workflow_id, news.id, news.job_id, endings.outcome
from news
left join endings on endings.job_id = news.job_id
order by news.workflow_id, news.id

-- Ends the waiting nodes that are not to run: a parent has failed or was cancelled and their policy is
-- not to ignore it, and so on down, or their workflow was cancelled. `bad` are jobs that have ended so,
-- `told` live ones that somebody asked to be looked at. Returns how many were ended, and whether some
-- are left: more than a statement takes, or held by somebody.
-- name: end_doomed_nodes
with recursive
  doomed (job_id, state, parent_id, parent_state) as (
    select
      children.job_id,
      case
        when parents.outcome = 'failed' then
          case children.parent_failed when 'fail' then 'failed' else 'cancelled' end
        else case children.parent_cancelled when 'fail' then 'failed' else 'cancelled' end
      end,
      parents.job_id,
      parents.outcome
    from (
      select parent_id, child_id
      from pgqueue.job_dependencies
      where parent_id = any(%(bad)s::bigint[])
      union
      select parent_id, child_id
      from pgqueue.job_dependencies
      where child_id = any(%(told)s::bigint[])
    ) as edges
    join pgqueue.workflow_nodes as children on children.job_id = edges.child_id
    join pgqueue.workflow_nodes as parents on parents.job_id = edges.parent_id
    where parents.outcome <> 'completed'
      and exists (
        select
        from pgqueue.jobs
        where jobs.id = children.job_id
          and jobs.state = 'waiting'
      )
      and case parents.outcome
        when 'failed' then children.parent_failed
        else children.parent_cancelled
      end <> 'ignore'
    union
    select
      children.job_id,
      case
        when doomed.state = 'failed' then
          case children.parent_failed when 'fail' then 'failed' else 'cancelled' end
        else case children.parent_cancelled when 'fail' then 'failed' else 'cancelled' end
      end,
      doomed.job_id,
      doomed.state
    from doomed
    join pgqueue.job_dependencies as edges on edges.parent_id = doomed.job_id
    join pgqueue.workflow_nodes as children on children.job_id = edges.child_id
    where case doomed.state
        when 'failed' then children.parent_failed
        else children.parent_cancelled
      end <> 'ignore'
      and exists (
        select
        from pgqueue.jobs
        where jobs.id = children.job_id
          and jobs.state = 'waiting'
      )
  ),
  -- A recursive query is worked off only as far as the limit asks.
  first_ones as materialized (
    select job_id, state, parent_id, parent_state
    from doomed
    limit %(n)s
  ),
  verdicts as materialized (
    select distinct on (first_ones.job_id)
      first_ones.job_id, first_ones.state, first_ones.parent_id, first_ones.parent_state,
      parents.name as parent_name
    from first_ones
    join pgqueue.workflow_nodes as parents on parents.job_id = first_ones.parent_id
    order by first_ones.job_id, first_ones.state desc, first_ones.parent_id
  ),
  called_off as materialized (
    select nodes.job_id
    from pgqueue.workflow_nodes as nodes
    join pgqueue.workflows on workflows.id = nodes.workflow_id
    where nodes.job_id = any(%(told)s::bigint[])
      and workflows.cancelled_at is not null
      and workflows.outcome is null
  ),
  targets as materialized (
    select jobs.ctid as tid, jobs.id
    from pgqueue.jobs
    where jobs.id = any(array(
        select job_id from verdicts
        union
        select job_id from called_off
      ))
      and jobs.state <> 'running'
    order by jobs.id
    for update skip locked
  ),
  ended_jobs as (
    delete from pgqueue.jobs
    where ctid = any(array(select tid from targets))
    returning
      id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
      attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress,
      headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect
  ),
  finished as (
    insert into pgqueue.finished_jobs (
      id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
      attempt, max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress,
      headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect, state, finished_at
    )
    select
      id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at,
      attempt, max_attempts, lease, worker_id, started_at, created_at, timeout,
      errors || case
        when verdicts.job_id is null then jsonb_build_object(
          'attempt', attempt,
          'at', pgqueue.clock_now(),
          'reason', 'cancelled',
          'message', 'its workflow was cancelled'
        )
        else jsonb_build_object(
          'attempt', attempt,
          'at', pgqueue.clock_now(),
          'reason', case verdicts.parent_state
            when 'failed' then 'parent-failed' else 'parent-cancelled' end,
          'message', 'node ' || verdicts.parent_name || ' (job ' || verdicts.parent_id || ') '
            || case verdicts.parent_state
              when 'failed' then 'failed'
              when 'deleted' then 'was deleted'
              else 'was cancelled'
            end,
          'parent', verdicts.parent_id
        )
      end,
      progress, headers, workflow_id, cancel_requested_at, expires_at, crashes, suspect,
      coalesce(verdicts.state, 'cancelled'),
      pgqueue.clock_now()
    from ended_jobs
    left join verdicts on verdicts.job_id = ended_jobs.id
    returning id
  )
select
  (select count(*) from finished) as ended,
  (select count(*) from first_ones) >= %(n)s
    or exists (
      select
      from verdicts
      join pgqueue.jobs on jobs.id = verdicts.job_id
      where jobs.state = 'waiting'
        and jobs.id <> all(array(select id from targets))
    ) as has_more

-- Locks the waiting nodes that have to be looked at: they wait for one that has ended, or somebody
-- told of them. Those that somebody holds come later.
-- name: lock_waiting_nodes
select jobs.id
from (
  select job_id
  from pgqueue.workflow_nodes
  where waits_for = any(%(ended)s::bigint[])
  union
  select unnest(%(told)s::bigint[])
) as asked
join pgqueue.jobs on jobs.id = asked.job_id
where jobs.state = 'waiting'
order by jobs.id
limit %(n)s
for update of jobs skip locked

-- Lets the locked nodes go whose parents have all ended; each of the others waits for the next one
-- that has not, looked for from the last one down. So each edge of a node is looked at twice in its
-- life, in whatever order its parents end: on the way down, and all together before it goes (a parent
-- that was passed may have come back by a retry).
-- name: release_nodes
with
  looked_at as materialized (
    select
      nodes.job_id,
      coalesce(
        (
          select edges.parent_id
          from pgqueue.job_dependencies as edges
          where edges.child_id = nodes.job_id
            and edges.parent_id < nodes.waits_for
            -- A subquery per edge: as a join it could be turned round, and read all nodes.
            and (
              select parents.outcome is null
              from pgqueue.workflow_nodes as parents
              where parents.job_id = edges.parent_id
            )
          order by edges.parent_id desc
          limit 1
        ),
        (
          select edges.parent_id
          from pgqueue.job_dependencies as edges
          where edges.child_id = nodes.job_id
            and (
              select parents.outcome is null
              from pgqueue.workflow_nodes as parents
              where parents.job_id = edges.parent_id
            )
          order by edges.parent_id desc
          limit 1
        )
      ) as next_parent
    from pgqueue.workflow_nodes as nodes
    where nodes.job_id = any(%(ids)s::bigint[])
  ),
  moved_nodes as (
    update pgqueue.workflow_nodes as nodes
    set waits_for = looked_at.next_parent
    from looked_at
    where nodes.job_id = looked_at.job_id
      and nodes.waits_for is distinct from looked_at.next_parent
  ),
  released_jobs as (
    update pgqueue.jobs
    set
      state = pgqueue.ready_state(limits),
      blocked_on = pgqueue.ready_on(limits),
      run_at = greatest(run_at, pgqueue.clock_now())
    where id = any(array(select job_id from looked_at where next_parent is null))
      and state = 'waiting'
    returning id
  )
select count(*)
from released_jobs

-- Deletes what was told and needs no further look; what does is kept and comes again. Returns how
-- many of `ids` are kept.
-- name: forget_news
with
  kept as materialized (
    select news.workflow_id, news.id
    from unnest(
      %(workflow_ids)s::bigint[], %(ids)s::bigint[], %(job_ids)s::bigint[]
    ) as news (workflow_id, id, job_id)
    where news.job_id = any(%(keep)s::bigint[])
      or exists (
        select
        from pgqueue.workflow_nodes as nodes
        join pgqueue.jobs on jobs.id = nodes.job_id
        where nodes.waits_for = news.job_id
          and jobs.state = 'waiting'
          and news.job_id = any(%(ended)s::bigint[])
      )
      or (
        news.job_id <> all(%(looked_at)s::bigint[])
        and exists (
          select
          from pgqueue.jobs
          where jobs.id = news.job_id
            and jobs.state = 'waiting'
        )
      )
  ),
  forgotten as (
    delete from pgqueue.workflow_news
    using unnest(%(workflow_ids)s::bigint[], %(ids)s::bigint[]) as news (workflow_id, id)
    where workflow_news.workflow_id = news.workflow_id
      and workflow_news.id = news.id
      and (news.workflow_id, news.id) not in (select workflow_id, id from kept)
  )
select count(*)
from kept

-- Which of the locked workflows have an open node no more, as far as was looked: from the last known
-- one down, and at those that live again.
-- name: watch_workflows
with
  looked_at as materialized (
    select
      workflows.id,
      greatest(
        (
          select nodes.job_id
          from pgqueue.workflow_nodes as nodes
          where nodes.workflow_id = workflows.id
            and nodes.job_id <= workflows.open_job_id
            and nodes.outcome is null
          order by nodes.job_id desc
          limit 1
        ),
        (
          select max(nodes.job_id)
          from pgqueue.workflow_nodes as nodes
          where nodes.job_id = any(%(told)s::bigint[])
            and nodes.workflow_id = workflows.id
            and nodes.outcome is null
        )
      ) as open_job_id
    from pgqueue.workflows
    where workflows.id = any(%(ids)s::bigint[])
  ),
  watched as (
    update pgqueue.workflows
    set
      open_job_id = looked_at.open_job_id,
      -- What is run again after the end is not to be cancelled.
      cancelled_at = case when workflows.outcome is null then workflows.cancelled_at end,
      outcome = null,
      finished_at = null,
      completed = null,
      failed = null,
      cancelled = null
    from looked_at
    where workflows.id = looked_at.id
      and looked_at.open_job_id is not null
      and (
        workflows.open_job_id is distinct from looked_at.open_job_id
        or workflows.outcome is not null
      )
  )
select looked_at.id
from looked_at
join pgqueue.workflows on workflows.id = looked_at.id
where looked_at.open_job_id is null
  and workflows.outcome is null

-- Closes those of these workflows that have no open node; counts, once.
-- name: close_workflows
with counted as materialized (
  select
    workflow_id,
    max(job_id) filter (where outcome is null) as open_job_id,
    count(*) filter (where outcome = 'completed') as completed,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome in ('cancelled', 'deleted')) as cancelled
  from pgqueue.workflow_nodes
  where workflow_id = any(%(ids)s::bigint[])
  group by workflow_id
)
update pgqueue.workflows
set
  open_job_id = counted.open_job_id,
  finished_at = case when counted.open_job_id is null then pgqueue.clock_now() end,
  outcome = case
    when counted.open_job_id is not null then null
    when counted.failed > 0 then 'failed'
    when counted.cancelled > 0 then 'cancelled'
    else 'completed'
  end,
  completed = case when counted.open_job_id is null then counted.completed end,
  failed = case when counted.open_job_id is null then counted.failed end,
  cancelled = case when counted.open_job_id is null then counted.cancelled end
from counted
where workflows.id = counted.workflow_id
returning workflows.id, workflows.outcome

-- What a workflow is called, and whether it goes on.
-- name: find_workflow
select name, cancelled_at, finished_at
from pgqueue.workflows
where id = %(id)s

-- The workflow of a job.
-- name: find_workflow_of
select workflow_id
from pgqueue.workflow_nodes
where job_id = %(id)s

-- name: find_nodes
select name, job_id
from pgqueue.workflow_nodes
where workflow_id = %(id)s
  and name = any(%(names)s::text[])

-- The members of groups, in order.
-- name: find_group_nodes
select group_name, name, job_id
from pgqueue.workflow_nodes
where workflow_id = %(id)s
  and group_name = any(%(names)s::text[])
order by job_id

-- Holds nodes that get another parent, until the end of the transaction; only those that still wait.
-- name: hold_waiting_nodes
select id
from pgqueue.jobs
where id = any(%(ids)s::bigint[])
  and state = 'waiting'
order by id
for update

-- Whether one of `parents` comes after one of `children`, or is one of them.
-- name: find_circle
with recursive following as (
  select unnest(%(children)s::bigint[]) as job_id
  union
  select edges.child_id
  from following
  join pgqueue.job_dependencies as edges on edges.parent_id = following.job_id
)
select job_id
from following
where job_id = any(%(parents)s::bigint[])
limit 1

-- Has live nodes looked at by the next pass.
-- name: tell_of_nodes
insert into pgqueue.workflow_news (workflow_id, job_id)
select %(workflow_id)s, job_id
from unnest(%(ids)s::bigint[]) as told (job_id)

-- What the parents of a job gave, in the order in which they were added.
-- name: find_parents
select parents.name, parents.group_name, parents.outcome, parents.result::text
from pgqueue.job_dependencies as edges
join pgqueue.workflow_nodes as parents on parents.job_id = edges.parent_id
where edges.child_id = %(id)s
order by edges.parent_id

-- The parents that a job waits for, and how many they are.
-- name: find_open_parents
select parents.name, parents.job_id, jobs.state, count(*) over () as open_parents
from pgqueue.job_dependencies as edges
join pgqueue.workflow_nodes as parents on parents.job_id = edges.parent_id
left join pgqueue.jobs on jobs.id = parents.job_id
where edges.child_id = %(id)s
  and parents.outcome is null
order by parents.job_id
limit 10

-- Workflows, newest first; `before` is the last id of the page before.
-- name: list_workflows
select
  id, name, state, nodes, waiting, blocked, queued, running, completed, failed, cancelled,
  created_at, cancelled_at, finished_at
from pgqueue.workflow_status
where (%(name)s::text is null or name = %(name)s)
  and (%(state)s::text is null or state = %(state)s)
  and (%(before)s::bigint is null or id < %(before)s)
order by id desc
limit %(n)s

-- name: show_workflow
select
  id, name, state, nodes, waiting, blocked, queued, running, completed, failed, cancelled,
  created_at, cancelled_at, finished_at
from pgqueue.workflow_status
where id = %(id)s

-- name: list_nodes
select
  job_id, name, group_name, task, state, parent_failed, parent_cancelled, started_at, finished_at
from pgqueue.workflow_node_status
where workflow_id = %(id)s
order by job_id

-- name: list_edges
select edges.child_id, edges.parent_id
from pgqueue.workflow_nodes as nodes
join pgqueue.job_dependencies as edges on edges.child_id = nodes.job_id
where nodes.workflow_id = %(id)s
order by edges.child_id, edges.parent_id

-- Says that a workflow is not to go on; no row comes back for one that has ended.
-- name: call_off_workflow
with
  called_off as (
    update pgqueue.workflows
    set cancelled_at = coalesce(cancelled_at, pgqueue.clock_now())
    where id = %(id)s
      and outcome is null
    returning id
  ),
  recorded as (
    insert into pgqueue.audit_log (who, source, action, target)
    select %(who)s, %(source)s, 'cancel', 'workflow ' || id
    from called_off
  )
select id
from called_off

-- name: find_live_nodes
select jobs.id
from pgqueue.workflow_nodes as nodes
join pgqueue.jobs on jobs.id = nodes.job_id
where nodes.workflow_id = %(id)s
order by jobs.id

-- Holds a workflow against passes until the end of the transaction.
-- name: hold_workflow
select id
from pgqueue.workflows
where id = %(id)s
for no key update

-- The nodes that did not complete and are over, and where their jobs are; no time for one that is
-- gone.
-- name: find_uncompleted_nodes
select nodes.job_id, ended.finished_at
from pgqueue.workflow_nodes as nodes
left join pgqueue.finished_jobs as ended on ended.id = nodes.job_id
where nodes.workflow_id = %(id)s
  and coalesce(nodes.outcome, ended.state) <> 'completed'
  and not exists (
    select
    from pgqueue.jobs
    where jobs.id = nodes.job_id
  )
order by nodes.job_id

-- These nodes and all that come after them, where their jobs are: live (a state and no time), ended,
-- or gone (neither).
-- name: find_nodes_from
with recursive following as (
  select unnest(%(ids)s::bigint[]) as job_id
  union
  select edges.child_id
  from following
  join pgqueue.job_dependencies as edges on edges.parent_id = following.job_id
)
select following.job_id, live.state, ended.finished_at
from following
left join pgqueue.jobs as live on live.id = following.job_id
left join pgqueue.finished_jobs as ended on ended.id = following.job_id
order by following.job_id

-- Nodes that live again wait for their parents, as far as those have not ended; their workflow goes
-- on.
-- name: reopen_nodes
with
  looked_at as materialized (
    select
      revived.job_id,
      (
        select edges.parent_id
        from pgqueue.job_dependencies as edges
        where edges.child_id = revived.job_id
          and (
            select parents.outcome is null
            from pgqueue.workflow_nodes as parents
            where parents.job_id = edges.parent_id
          )
        order by edges.parent_id desc
        limit 1
      ) as waits_for
    from unnest(%(ids)s::bigint[]) as revived (job_id)
  ),
  waiting_nodes as (
    update pgqueue.workflow_nodes as nodes
    set waits_for = looked_at.waits_for
    from looked_at
    where nodes.job_id = looked_at.job_id
  ),
  reopened as (
    update pgqueue.workflows
    set
      open_job_id = greatest(open_job_id, (select max(job_id) from looked_at)),
      cancelled_at = null,
      finished_at = null,
      outcome = null,
      completed = null,
      failed = null,
      cancelled = null
    where id = %(id)s
  )
update pgqueue.jobs
set
  state = 'waiting',
  blocked_on = null,
  admitted_seq = null
where id = any(array(select job_id from looked_at where waits_for is not null))

-- Workflows that ended longer ago than any finished job is kept: deleted whole, ten at a time.
-- name: sweep_workflows
with
  old_workflows as materialized (
    select id
    from pgqueue.workflows
    where finished_at < pgqueue.clock() - interval '1 day' - (
      select coalesce(max(keep), interval '0')
      from pgqueue.retention
    )
    order by finished_at
    limit 10
    for update skip locked
  ),
  old_nodes as (
    delete from pgqueue.workflow_nodes
    where workflow_id = any(array(select id from old_workflows))
    returning job_id
  ),
  old_edges as (
    delete from pgqueue.job_dependencies
    where child_id in (select job_id from old_nodes)
  ),
  old_news as (
    delete from pgqueue.workflow_news
    where workflow_id = any(array(select id from old_workflows))
  )
delete from pgqueue.workflows
where id = any(array(select id from old_workflows))
returning id
