-- How many jobs of a tenant may wait. Who changes it is written down; the same again is no change.

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
