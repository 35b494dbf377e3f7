drop view pgqueue.schedule_health;
drop view pgqueue.backfill_status;
drop view pgqueue.window_status;

drop function pgqueue.is_span_covered(bigint, timestamptz, timestamptz);
drop function pgqueue.is_span_completed(bigint, timestamptz, timestamptz);
drop function pgqueue.window_outcome(bigint, timestamptz);
drop function pgqueue.window_key(bigint, timestamptz, text);

-- The schema before knows of no windows that wait, have no job, or were asked for by hand.
update pgqueue.jobs
set state = 'queued'
where state = 'waiting'
  and id in (select job_id from pgqueue.windows where held);

delete from pgqueue.windows
where mode = 'manual';

delete from pgqueue.chores
where name = 'windows';

delete from pgqueue.retention
where state_group = 'windows';

alter table pgqueue.retention
  drop constraint retention_windows,
  drop constraint retention_state_group,
  add constraint retention_state_group check (state_group in ('completed', 'failed'));

alter table pgqueue.windows
  drop column held,
  drop column due_at,
  drop column backfill_id,
  drop column outcome,
  drop column started_at,
  drop column finished_at,
  drop constraint windows_mode,
  add constraint windows_mode check (mode in ('window', 'catchup', 'since-last-run', 'backfill'));

drop index pgqueue.windows_job;
drop index pgqueue.schedules_cancelling;
drop table pgqueue.backfills;

alter table pgqueue.schedules
  drop constraint schedules_times,
  drop column priority,
  drop column tags,
  drop column tenant,
  drop column timeout,
  drop column window_mode,
  drop column catch_up_max_age,
  drop column catch_up_max_count,
  drop column jitter,
  drop column starts_at,
  drop column ends_at,
  drop column after_id,
  drop column declared,
  drop column paused_at,
  drop column paused_by,
  drop column pause_reason,
  add constraint schedules_times check (isfinite(next_run_at)),
  drop constraint schedules_delay,
  add constraint schedules_delay check (delay >= 0 and delay < 'infinity');

create view pgqueue.window_status as
select
  windows.id, windows.schedule_id, schedules.name as schedule,
  windows.window_start, windows.window_end, windows.mode, windows.run, windows.job_id,
  windows.created_at,
  coalesce(live.state, ended.state, 'lost') as state,
  coalesce(live.attempt, ended.attempt) as attempt,
  coalesce(live.started_at, ended.started_at) as started_at,
  ended.finished_at
from pgqueue.windows
join pgqueue.schedules on schedules.id = windows.schedule_id
left join pgqueue.jobs as live on live.id = windows.job_id
left join pgqueue.finished_jobs as ended
  on ended.id = windows.job_id
  and ended.finished_at >= windows.created_at;

update pgqueue.schema_info
set version = 4;
