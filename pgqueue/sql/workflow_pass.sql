-- Passes over workflows: the consequences of endings.

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

-- How a pass is planned, and that its commit waits for no disk: lost, it is made again. By statistics
-- from when the tables were small, the planner reads all nodes or edges and sorts them where it should
-- take the first by the index (seen: 5 ms instead of 0.1 a look, at 10,000 nodes).
-- name: open_pass
select
  set_config('synchronous_commit', 'off', true),
  set_config('enable_seqscan', 'off', true),
  set_config('jit', 'off', true),
  set_config('enable_bitmapscan', 'off', true)

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
-- bounded by when it was told, so that it takes the days since and not all.
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
  -- All in one walk: as joins of such lists the planner, which takes them for short, compares each
  -- with each.
  endings as materialized (
    select
      news.workflow_id, news.id, news.job_id,
      case when live.id is null then coalesce(ended.state, 'deleted') end as outcome,
      ended.result, ended.started_at, ended.finished_at
    from news
    left join lateral (
      select jobs.id
      from pgqueue.jobs
      where jobs.id = news.job_id
      limit 1
    ) as live on true
    left join lateral (
      select state, result, started_at, finished_at
      from pgqueue.finished_jobs
      where finished_jobs.id = news.job_id
        and live.id is null
        and finished_jobs.finished_at between
          (select min(at) - interval '1 hour' from news)
          and pgqueue.clock() + interval '1 hour'
      order by finished_at desc
      limit 1
    ) as ended on true
  ),
  -- Also takes back what a pass wrote down of a job that was retried at that moment: it saw the end,
  -- and wrote after the retry.
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
      waits_for = case when endings.outcome is null then nodes.waits_for end
    from endings
    where nodes.job_id = endings.job_id
      and (nodes.outcome, nodes.finished_at)
        is distinct from (endings.outcome, endings.finished_at)
      -- Told of again, after retention has dropped its job: what is known of it stays.
      and (nodes.outcome is null or endings.outcome is distinct from 'deleted')
  )
select workflow_id, id, job_id, outcome
from endings
order by workflow_id, id

-- Locks the waiting nodes that have to be looked at: they wait for one that has ended, or somebody
-- told of them. Those that somebody holds come later. One probe per node, whatever the statistics say.
-- name: lock_waiting_nodes
with asked as materialized (
  select job_id
  from (
    (
      select watching.job_id
      from unnest(%(ended)s::bigint[]) as parents (job_id)
      cross join lateral (
        select job_id
        from pgqueue.workflow_nodes
        -- A range, in its order, and not `waits_for = x`: so that only its index fits. By statistics
        -- from when all waited for one, any index would do, and all nodes be read for each parent.
        where waits_for is not null
          and (waits_for, workflow_nodes.job_id) > (parents.job_id, 0)
          and (waits_for, workflow_nodes.job_id) < (parents.job_id + 1, 0)
        order by waits_for, job_id
        -- More than are taken: those that do not wait any more are told of themselves.
        limit 4 * %(n)s
      ) as watching
      limit 4 * %(n)s
    )
    union
    select unnest(%(told)s::bigint[])
  ) as found
  order by job_id
)
select held.id
from asked
cross join lateral (
  select jobs.id
  from pgqueue.jobs
  where jobs.id = asked.job_id
    and jobs.state = 'waiting'
  limit 1
  for update skip locked
) as held
limit %(n)s

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
      order_name = pgqueue.ready_order(limits),
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
  judged as materialized (
    select
      told.tid,
      news.job_id = any(%(keep)s::bigint[])
        or (
          news.job_id = any(%(ended)s::bigint[])
          and (
            select true
            from pgqueue.workflow_nodes as nodes
            where nodes.waits_for is not null
              and (nodes.waits_for, nodes.job_id) > (news.job_id, 0)
              and (nodes.waits_for, nodes.job_id) < (news.job_id + 1, 0)
              -- Not a join: from a time when all waited for one, the planner joins whole tables.
              and (
                select jobs.state = 'waiting'
                from pgqueue.jobs
                where jobs.id = nodes.job_id
              )
            order by nodes.waits_for, nodes.job_id
            limit 1
          ) is not null
        )
        or (
          news.job_id <> all(%(ended)s::bigint[])
          and news.job_id <> all(%(looked_at)s::bigint[])
          and exists (
            select
            from pgqueue.jobs
            where jobs.id = news.job_id
              and jobs.state = 'waiting'
          )
        ) as is_kept
    from unnest(
      %(workflow_ids)s::bigint[], %(ids)s::bigint[], %(job_ids)s::bigint[]
    ) as news (workflow_id, id, job_id)
    cross join lateral (
      select workflow_news.ctid as tid
      from pgqueue.workflow_news
      where workflow_news.workflow_id = news.workflow_id
        and workflow_news.id = news.id
      limit 1
    ) as told
  ),
  forgotten as (
    delete from pgqueue.workflow_news
    where ctid = any(array(select tid from judged where not is_kept))
  )
select count(*)
from judged
where is_kept

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
          -- Not `job_id = any(ids)`: a generic plan walks all nodes of the workflow.
          select max(told.job_id)
          from unnest(%(told)s::bigint[]) as told (job_id)
          where (
            select nodes.workflow_id = workflows.id and nodes.outcome is null
            from pgqueue.workflow_nodes as nodes
            where nodes.job_id = told.job_id
          )
        )
      ) as open_job_id
    from pgqueue.workflows
    where workflows.id = any(%(ids)s::bigint[])
  ),
  watched as (
    update pgqueue.workflows
    set
      open_job_id = looked_at.open_job_id,
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
