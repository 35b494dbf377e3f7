-- How many jobs of a tenant may wait.

-- name: put_quota
insert into pgqueue.quotas (tenant, max_waiting)
values (%(tenant)s, %(max_waiting)s)
on conflict (tenant) do update
set max_waiting = excluded.max_waiting

-- name: delete_quota
delete from pgqueue.quotas
where tenant = %(tenant)s
