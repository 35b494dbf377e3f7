drop view pgqueue.dead_letters;
drop view pgqueue.stuck_jobs;
drop view pgqueue.unknown_tasks;
drop view pgqueue.queue_stats;

create view pgqueue.queue_stats as
select
  queue,
  coalesce(settings.paused, false) as paused,
  count(*) filter (where status = 'queued') as queued,
  count(*) filter (where status = 'scheduled') as scheduled,
  count(*) filter (where status = 'retrying') as retrying,
  count(*) filter (where status = 'blocked') as blocked,
  count(*) filter (where status = 'waiting') as waiting,
  count(*) filter (where status = 'running') as running,
  pgqueue.clock() - min(run_at) filter (where status = 'queued') as oldest_due
from (
  select
    queue,
    run_at,
    case
      when state <> 'queued' or run_at <= pgqueue.clock() then state
      when attempt > 0 then 'retrying'
      else 'scheduled'
    end as status
  from pgqueue.jobs
) as live
full join (select name as queue, paused from pgqueue.queues) as settings using (queue)
group by queue, settings.paused;

alter table pgqueue.queues
  drop column paused_at,
  drop column paused_by,
  drop column pause_reason;

drop function pgqueue.enqueue(
  text, jsonb, text, integer, timestamptz, interval, text, text[], text, text, interval, integer,
  double precision, timestamptz, jsonb
);
drop function pgqueue.enqueue_v1(
  text, jsonb, text, integer, timestamptz, interval, text, text[], text, text, interval, integer,
  double precision, timestamptz, jsonb, interval
);
drop table pgqueue.chores;
drop table pgqueue.retention;
drop table pgqueue.audit_log;
drop table pgqueue.job_logs;
drop table pgqueue.quotas;
drop table pgqueue.unique_keys;
drop index pgqueue.jobs_expiry;
drop index pgqueue.jobs_tenant_waiting;

-- A view cannot lose columns by `create or replace`.
drop view pgqueue.all_jobs;

alter table pgqueue.finished_jobs
  drop column expires_at,
  drop column crashes,
  drop column suspect;

alter table pgqueue.jobs
  drop column expires_at,
  drop column crashes,
  drop column suspect;

create view pgqueue.all_jobs as
select
  id, task, queue, priority, state,
  case
    when state <> 'queued' or run_at <= pgqueue.clock() then state
    when attempt > 0 then 'retrying'
    else 'scheduled'
  end as status,
  payload, tenant, tags, unique_key, limits, blocked_on, run_at, scheduled_at, attempt,
  max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress, headers,
  workflow_id, cancel_requested_at,
  null::timestamptz as finished_at,
  null::jsonb as result
from pgqueue.jobs
union all
select
  id, task, queue, priority, state,
  state as status,
  payload, tenant, tags, unique_key, limits, null as blocked_on, run_at, scheduled_at, attempt,
  max_attempts, lease, worker_id, started_at, created_at, timeout, errors, progress, headers,
  workflow_id, cancel_requested_at,
  finished_at,
  result
from pgqueue.finished_jobs;

update pgqueue.schema_info
set version = 2;
