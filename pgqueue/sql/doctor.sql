-- What `pgq doctor` looks at.

-- Days for which partitions exist ahead of today, by state group.
-- name: count_days_ahead
select
  parents.name,
  count(children.oid) filter (
    where right(children.relname, 8) > to_char(pgqueue.clock() at time zone 'UTC', 'YYYYMMDD')
  )::integer as days
from (
  values
    ('completed', 'pgqueue.finished_jobs_completed'::regclass),
    ('failed', 'pgqueue.finished_jobs_failed'::regclass)
) as parents (name, parent)
left join pg_inherits on pg_inherits.inhparent = parents.parent
left join pg_class as children on children.oid = pg_inherits.inhrelid
group by parents.name
order by parents.name

-- Who keeps dead rows from being cleaned up, oldest first: sessions of more than five minutes in one
-- transaction, prepared transactions, replication slots that hold a snapshot.
-- name: find_old_snapshots
select what, extract(epoch from age)::double precision as seconds
from (
  select
    'process ' || pid || coalesce(' of ' || usename, '')
      || coalesce(' (' || nullif(application_name, '') || ')', '') as what,
    clock_timestamp() - xact_start as age
  from pg_stat_activity
  where xact_start < clock_timestamp() - interval '5 minutes'
    and (backend_xmin is not null or backend_xid is not null)
    and pid <> pg_backend_pid()
    and backend_type = 'client backend'
  union all
  select 'prepared transaction ' || gid, clock_timestamp() - prepared
  from pg_prepared_xacts
  where prepared < clock_timestamp() - interval '5 minutes'
  union all
  select 'replication slot ' || slot_name, null
  from pg_replication_slots
  where xmin is not null
    and not active
) as holders
order by age desc nulls last

-- name: count_dead_workers
select
  count(*) filter (where alive) as living,
  count(*) filter (where not alive) as silent,
  (
    select count(*)
    from pgqueue.jobs
    where state = 'running'
      and not exists (
        select
        from pgqueue.worker_status
        where worker_status.id = jobs.worker_id
          and worker_status.alive
      )
  ) as orphaned
from pgqueue.worker_status

-- name: list_unknown_tasks
select task, queue, jobs
from pgqueue.unknown_tasks
order by jobs desc, task
limit 20

-- Orders that a failed job holds, the longest lines first.
-- name: list_held_orders
select
  held.name, held.job_id,
  (
    select count(*)
    from pgqueue.jobs
    where jobs.order_name = held.name
  ) as waiting
from pgqueue.stuck_jobs as stuck
join pgqueue.jobs on jobs.id = stuck.id
join pgqueue.order_holds as held on held.name = jobs.order_name
where stuck.reason = 'order-held'
order by waiting desc, held.name
limit 20

-- Lines that stand: before a limit of none, or one whose slots are all held by who was let in more
-- than an hour ago. Of the thousand longest lines.
-- name: list_standing_lines
with
  lines as materialized (
    select blocked_on as name, count(*) as jobs
    from pgqueue.jobs
    where blocked_on is not null
      and not starts_with(blocked_on, '@')
    group by blocked_on
    order by count(*) desc
    limit 1000
  ),
  holders as materialized (
    select
      names.name,
      count(*) as jobs,
      max(jobs.run_at) as last_admission,
      (array_agg(jobs.id order by jobs.admitted_seq))[:10] as ids
    from pgqueue.jobs
    cross join unnest(jobs.limits) as names (name)
    where jobs.admitted_seq is not null
    group by names.name
  )
select
  lines.name, lines.jobs, rule.running, holders.ids,
  extract(epoch from pgqueue.clock() - holders.last_admission)::double precision as seconds
from lines
cross join lateral pgqueue.limit_rule(lines.name) as rule
left join holders on holders.name = lines.name
where rule.running = 0
  or (
    holders.jobs >= rule.running
    and holders.last_admission < pgqueue.clock() - interval '1 hour'
  )
order by lines.jobs desc, lines.name
limit 20

-- Limited jobs that came more than five minutes ago and that no pass of admission has looked at.
-- name: count_unseen
select count(*)
from pgqueue.jobs
where blocked_on collate "C" = '@new'
  and run_at < pgqueue.clock() - interval '5 minutes'

-- name: list_failed_chores
select name, last_error
from pgqueue.chores
where last_error is not null
order by name
