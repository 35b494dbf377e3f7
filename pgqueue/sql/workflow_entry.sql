-- Bring workflows into the database, and further nodes into those under way.

-- Ids for so many nodes, in order.
-- name: take_node_ids
select array(
  select nextval((select pg_get_serial_sequence('pgqueue.jobs', 'id')::regclass))
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
      %(headers)s::text[],
      %(limits)s::text[]
    ) as asked (
      id, name, group_name, parent_failed, parent_cancelled, waits_for, task, queue, payload,
      priority, run_at, delay, tenant, tags, max_attempts, timeout, expires_at, headers,
      limits
    )
  ),
  inserted_jobs as (
    insert into pgqueue.jobs (
      id, task, queue, payload, priority, limits, state, blocked_on, order_name, run_at, scheduled_at,
      tenant, tags, max_attempts, timeout, expires_at, headers, workflow_id
    )
    select
      id, task, queue, payload, priority, limits,
      case when waits_for is null then pgqueue.ready_state(limits) else 'waiting' end,
      case when waits_for is null then pgqueue.ready_on(limits) end,
      case when waits_for is null then pgqueue.ready_order(limits) end,
      greatest(due_at, pgqueue.clock_now()),
      due_at, tenant, tags::text[], max_attempts, timeout, expires_at, headers::jsonb,
      %(workflow_id)s
    from (
      select
        id, task, queue, payload::jsonb as payload, priority, waits_for, due_at, tenant, tags,
        max_attempts, timeout, expires_at, headers,
        case limits
          when '{}' then pgqueue.limits_of(task, queue, tenant, payload::jsonb)
          else pgqueue.render_limits(limits::text[], task, queue, tenant, payload::jsonb)
        end as limits
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

-- Which queue would have more waiting than it takes, with these new ones. Approximate as above.
-- name: find_full_queue
select asked.queue, queues.max_queued
from unnest(%(queues)s::text[], %(counts)s::bigint[]) as asked (queue, n)
join pgqueue.queues on queues.name = asked.queue
where queues.max_queued < asked.n + pgqueue.backlog(queues.name, queues.max_queued)
limit 1

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

-- One at a time adds what may close a circle with what another one adds. No lock on the workflow's
-- row: a handler's transaction may hold this for long, and passes go on meanwhile.
-- name: hold_adders
select pg_advisory_xact_lock(
  hashtextextended('pgqueue.workflows'::regclass::oid::text, %(id)s)
) is null as locked

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
