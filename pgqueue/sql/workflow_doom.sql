-- Within a pass: who is not to run any more.

-- Ends the waiting nodes that are not to run: a parent has failed or was cancelled and their policy is
-- not to ignore it, and so on down, or their workflow was cancelled. `bad` are jobs that have ended so,
-- `told` live ones that somebody asked to be looked at. Returns how many were ended, and whether some
-- are left: more than a statement takes, or held by somebody.
-- name: end_doomed_nodes
with recursive
  doomed (job_id, state, parent_id, parent_state, is_sure) as (
    select
      children.job_id,
      case
        when parents.outcome = 'failed' then
          case children.parent_failed when 'fail' then 'failed' else 'cancelled' end
        else case children.parent_cancelled when 'fail' then 'failed' else 'cancelled' end
      end,
      parents.job_id,
      parents.outcome,
      children.parent_failed = children.parent_cancelled
        or 'ignore' in (children.parent_failed, children.parent_cancelled)
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
      doomed.state,
      children.parent_failed = children.parent_cancelled
        or 'ignore' in (children.parent_failed, children.parent_cancelled)
    from doomed
    join pgqueue.job_dependencies as edges on edges.parent_id = doomed.job_id
    join pgqueue.workflow_nodes as children on children.job_id = edges.child_id
    -- Whose policies may call it off in two ways gets its state below, and its children theirs by
    -- the pass that is told of it.
    where doomed.is_sure
      and case doomed.state
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
    select nodes.job_id, jobs.state
    from pgqueue.workflow_nodes as nodes
    join pgqueue.workflows on workflows.id = nodes.workflow_id
    join pgqueue.jobs on jobs.id = nodes.job_id
    where nodes.job_id = any(%(told)s::bigint[])
      and workflows.cancelled_at is not null
      -- Added while it was cancelled. One that somebody runs again was tried, or has its errors.
      and jobs.attempt = case jobs.state when 'running' then 1 else 0 end
      and jobs.errors = '[]'
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
  -- Who follows one that somebody holds just now waits until it is known how that one ends.
  spared (job_id) as (
    select job_id
    from verdicts
    where job_id <> all(array(select id from targets))
    union
    select verdicts.job_id
    from spared
    join verdicts on verdicts.parent_id = spared.job_id
  ),
  running_ones as materialized (
    select jobs.ctid as tid
    from pgqueue.jobs
    where jobs.id = any(array(select job_id from called_off where called_off.state = 'running'))
      and jobs.state = 'running'
    for update skip locked
  ),
  marked_jobs as (
    update pgqueue.jobs
    set cancel_requested_at = coalesce(cancel_requested_at, pgqueue.clock_now())
    where ctid = any(array(select tid from running_ones))
  ),
  ended_jobs as (
    delete from pgqueue.jobs
    where ctid = any(array(
        select tid
        from targets
        where id <> all(array(select job_id from spared))
      ))
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
