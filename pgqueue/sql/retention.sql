-- Whole days of finished jobs go at once. In the statements on one partition `some_group` and
-- `some_partition` are put in by engine/retention.py: names of ours, checked there.

-- The day partitions with what the table `retention` says about them, oldest first. A group without
-- a row there is kept for ever. `is_recent` covers yesterday, too: a clock may step back.
-- name: find_days
select
  'finished_jobs_' || state_groups.name as parent_name,
  child.relname::text as partition_name,
  dated.day,
  pg_inherits.inhdetachpending as is_pending,
  coalesce(
    (dated.day + 1)::timestamp at time zone 'UTC' <= pgqueue.clock() - retention.keep,
    false
  ) as is_old,
  dated.day >= (pgqueue.clock() at time zone 'UTC')::date - 1 as is_recent,
  retention.keep_count,
  state_groups.states
from (
  values
    ('completed', 'pgqueue.finished_jobs_completed'::regclass, array['completed']),
    ('failed', 'pgqueue.finished_jobs_failed'::regclass, array['failed', 'cancelled'])
) as state_groups (name, parent, states)
join pg_inherits on pg_inherits.inhparent = state_groups.parent
join pg_class as child on child.oid = pg_inherits.inhrelid
cross join lateral (select to_date(right(child.relname, 8), 'YYYYMMDD') as day) as dated
left join pgqueue.retention on retention.state_group = state_groups.name
where child.relname ~ '^finished_jobs_(completed|failed)_[0-9]{8}$'
order by dated.day, parent_name

-- How many jobs a day holds, counted up to `most`.
-- name: count_day
select count(*)
from (
  select
  from pgqueue.finished_jobs
  where state = any(%(states)s::text[])
    and finished_at >= %(day)s::date::timestamp at time zone 'UTC'
    and finished_at < (%(day)s::date + 1)::timestamp at time zone 'UTC'
  limit %(most)s
) as counted

-- Deletes the log lines of up to 1000 jobs of a day, 5000 lines a call. Returns the last job of the
-- page (none: the walk has ended) and how many lines went; at 5000 the same page comes again.
-- name: clean_logs
with
  page as materialized (
    select id
    from pgqueue.finished_jobs
    where state = any(%(states)s::text[])
      and finished_at >= %(day)s::date::timestamp at time zone 'UTC'
      and finished_at < (%(day)s::date + 1)::timestamp at time zone 'UTC'
      and id > %(after)s
    order by id
    limit 1000
  ),
  deleted_lines as (
    delete from pgqueue.job_logs
    where ctid = any(array(
      select line.tid
      from page
      cross join lateral (
        select job_logs.ctid as tid
        from pgqueue.job_logs
        where job_logs.job_id = page.id
        limit 5000
      ) as line
      limit 5000
    ))
    returning job_id
  )
select
  (select max(id) from page) as place,
  (select count(*) from deleted_lines) as deleted

-- Tables that retention detached and did not come to drop. What somebody else detached, to keep it,
-- lacks the comment.
-- name: find_detached
select relname::text
from pg_class
where relkind = 'r'
  and not relispartition
  and relname ~ '^finished_jobs_(completed|failed)_[0-9]{8}$'
  and relnamespace = (
    select relnamespace from pg_class where oid = 'pgqueue.finished_jobs'::regclass
  )
  and obj_description(oid, 'pg_class') = 'dropped by retention'
order by relname

-- The wait for a lock, where there is a transaction and where there is none.
-- name: ddl_wait
set local lock_timeout = '100ms'

-- name: ddl_wait_of_session
set lock_timeout = '100ms'

-- name: ddl_wait_over
reset lock_timeout

-- name: mark_day
comment on table pgqueue.some_partition is 'dropped by retention'

-- Outside of a transaction, on a session of our own; finishes go on meanwhile.
-- name: detach_day_concurrently
alter table pgqueue.some_group detach partition pgqueue.some_partition concurrently

-- Holds up finishes while it waits for its lock: only where a pooler rules the other way out.
-- name: detach_day
alter table pgqueue.some_group detach partition pgqueue.some_partition

-- name: finalize_day
alter table pgqueue.some_group detach partition pgqueue.some_partition finalize

-- name: drop_day
drop table pgqueue.some_partition

-- What is kept of each group; without a row there, for ever.
-- name: find_policies
select state_groups.name, retention.keep, retention.keep_count
from (values ('completed'), ('failed'), ('windows')) as state_groups (name)
left join pgqueue.retention on retention.state_group = state_groups.name
order by state_groups.name

-- Who changes it is written down; the same again is no change.
-- name: put_policy
with
  known as materialized (
    select keep, keep_count
    from pgqueue.retention
    where state_group = %(state_group)s
  ),
  put as (
    insert into pgqueue.retention as known (state_group, keep, keep_count)
    values (%(state_group)s, %(keep)s, %(keep_count)s)
    on conflict (state_group) do update
    set keep = excluded.keep, keep_count = excluded.keep_count
    where (known.keep, known.keep_count) is distinct from (excluded.keep, excluded.keep_count)
    returning state_group, keep, keep_count
  )
insert into pgqueue.audit_log (who, source, action, target, details)
select
  %(who)s, %(source)s, 'retention',
  case when put.state_group = 'windows' then 'windows' else put.state_group || ' jobs' end,
  jsonb_build_object(
    'keep', put.keep,
    'keep_count', put.keep_count,
    'before', (select to_jsonb(known) from known)
  )
from put

-- name: delete_policy
with deleted as (
  delete from pgqueue.retention
  where state_group = %(state_group)s
  returning state_group, keep, keep_count
)
insert into pgqueue.audit_log (who, source, action, target, details)
select
  %(who)s, %(source)s, 'retention',
  case when state_group = 'windows' then 'windows' else state_group || ' jobs' end,
  jsonb_build_object(
    'keep', null,
    'keep_count', null,
    'before', jsonb_build_object('keep', keep, 'keep_count', keep_count)
  )
from deleted

-- What an operator's pass did; one that found nothing to do leaves no line.
-- name: record_prune
insert into pgqueue.audit_log (who, source, action, target, details)
values (
  %(who)s, %(source)s, 'prune', 'finished jobs',
  jsonb_build_object('dropped', %(dropped)s::text[], 'postponed', %(postponed)s::text[])
)
