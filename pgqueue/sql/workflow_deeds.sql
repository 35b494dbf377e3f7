-- What operators and handlers see of workflows, and what operators do to them.

-- What the parents of a job gave, in the order in which they were added.
-- name: find_parents
select
  parents.name, parents.group_name, parents.outcome,
  coalesce(
    parents.result,
    -- It ended before it had children: they were added later.
    (
      select ended.result
      from pgqueue.finished_jobs as ended
      where parents.outcome = 'completed'
        and ended.id = parents.job_id
        and ended.finished_at = parents.finished_at
      limit 1
    )
  )::text
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

-- The last errors of nodes that have failed, or that wait for their next try.
-- name: list_node_errors
select
  nodes.job_id, nodes.name, failed.error ->> 'type' as kind, failed.error ->> 'message' as message,
  failed.next_try
from pgqueue.workflow_nodes as nodes
cross join lateral (
  select live.errors -> -1 as error, live.run_at as next_try
  from pgqueue.jobs as live
  where live.id = nodes.job_id
    and live.state in ('queued', 'blocked')
    and live.errors <> '[]'
  union all
  (
    select ended.errors -> -1, null
    from pgqueue.finished_jobs as ended
    where coalesce(nodes.outcome, 'failed') = 'failed'
      and ended.id = nodes.job_id
      and ended.state = 'failed'
    order by ended.finished_at desc
    limit 1
  )
) as failed
where nodes.workflow_id = %(id)s
order by nodes.job_id
limit %(n)s

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
-- One look for each; a plain join might read every finished job.
left join lateral (
  select state, finished_at
  from pgqueue.finished_jobs
  where finished_jobs.id = nodes.job_id
    -- Only its own day, where that is known, and not every one that is kept.
    and finished_jobs.finished_at between
      coalesce(nodes.finished_at, '-infinity') and coalesce(nodes.finished_at, 'infinity')
  order by finished_at desc
  limit 1
) as ended on true
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
join pgqueue.workflow_nodes as nodes on nodes.job_id = following.job_id
left join pgqueue.jobs as live on live.id = following.job_id
left join lateral (
  select finished_at
  from pgqueue.finished_jobs
  where finished_jobs.id = following.job_id
    and finished_jobs.finished_at between
      coalesce(nodes.finished_at, '-infinity') and coalesce(nodes.finished_at, 'infinity')
  order by finished_at desc
  limit 1
) as ended on true
order by following.job_id

-- Nodes that live again wait for their parents, as far as those have not ended, and who was let go
-- after them and has not begun waits again; their workflow goes on.
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
    from (
      select unnest(%(ids)s::bigint[])
      union
      select followers.child_id
      from unnest(%(ids)s::bigint[]) as again (job_id)
      cross join lateral (
        select edges.child_id
        from pgqueue.job_dependencies as edges
        where edges.parent_id = again.job_id
          and (
            select jobs.state in ('queued', 'blocked') and jobs.attempt = 0
            from pgqueue.jobs
            where jobs.id = edges.child_id
          )
      ) as followers
    ) as revived (job_id)
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
  order_name = null,
  admitted_seq = null
where id = any(array(select job_id from looked_at where waits_for is not null))
  and state in ('queued', 'blocked', 'waiting')

-- Workflows that ended longer ago than any finished job is kept: deleted whole, ten at a time.
-- name: sweep_workflows
with
  old_workflows as materialized (
    select id
    from pgqueue.workflows
    where finished_at < pgqueue.clock() - interval '1 day' - (
      select coalesce(max(keep), interval '0')
      from pgqueue.retention
      where state_group <> 'windows'
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
