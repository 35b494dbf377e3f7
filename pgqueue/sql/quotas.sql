-- How many jobs of a tenant or of a queue may wait. Who changes it is written down; the same again is no
-- change.

-- name: put_quota
with
  known as materialized (
    select max_waiting
    from pgqueue.quotas
    where tenant = %(tenant)s
  ),
  put as (
    insert into pgqueue.quotas as known (tenant, max_waiting)
    values (%(tenant)s, %(max_waiting)s)
    on conflict (tenant) do update
    set max_waiting = excluded.max_waiting
    where known.max_waiting <> excluded.max_waiting
    returning tenant, max_waiting
  )
insert into pgqueue.audit_log (who, source, action, target, details)
select
  %(who)s, %(source)s, 'quota', 'tenant ' || tenant,
  jsonb_build_object('max_waiting', max_waiting, 'before', (select max_waiting from known))
from put

-- name: delete_quota
with deleted as (
  delete from pgqueue.quotas
  where tenant = %(tenant)s
  returning tenant, max_waiting
)
insert into pgqueue.audit_log (who, source, action, target, details)
select
  %(who)s, %(source)s, 'quota', 'tenant ' || tenant,
  jsonb_build_object('max_waiting', null, 'before', max_waiting)
from deleted

-- name: count_backlog
select pgqueue.backlog(%(queue)s, %(most)s)

-- How full a queue that has a bound is; no row comes back for one without.
-- name: find_fill
select max_queued, pgqueue.backlog(name, max_queued)
from pgqueue.queues
where name = %(queue)s
  and max_queued is not null

-- name: put_max_queued
with
  known as materialized (
    select max_queued
    from pgqueue.queues
    where name = %(queue)s
  ),
  put as (
    insert into pgqueue.queues as known (name, max_queued)
    values (%(queue)s, %(max_queued)s::integer)
    on conflict (name) do update
    set max_queued = excluded.max_queued
    where known.max_queued is distinct from excluded.max_queued
    returning name, max_queued
  )
insert into pgqueue.audit_log (who, source, action, target, details)
select
  %(who)s, %(source)s, 'max-queued', 'queue ' || name,
  jsonb_build_object('max_queued', max_queued, 'before', (select max_queued from known))
from put
