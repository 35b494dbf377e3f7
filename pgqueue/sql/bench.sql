-- What `pgq bench` asks, in a schema of its own.

-- name: bench_server
select
  current_setting('server_version') as server_version,
  current_setting('synchronous_commit') as synchronous_commit,
  current_setting('fsync') as fsync

-- Of the whole server: whoever writes meanwhile is counted, too.
-- name: bench_wal_position
select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 as bytes

-- The way of jobs `first` to `last` through the workers, on the database's clock.
-- name: bench_drained
select
  count(*) as jobs,
  extract(epoch from max(finished_at) - min(started_at))::float8 as seconds
from pgqueue.finished_jobs
where id between %(first)s and %(last)s
  and state = 'completed'

-- By its key first: the walk of the other passes every dead row.
-- name: bench_has_job
select exists (
  select
  from pgqueue.jobs
  where id = %(id)s
) as is_there

-- name: bench_has_jobs
select exists (
  select
  from pgqueue.jobs
) as are_there

-- What the handlers returned: seconds from the call of enqueue to their first line.
-- name: bench_latencies
select
  count(*) as jobs,
  percentile_cont(array[0.5, 0.95, 0.99, 1.0]) within group (order by result::float8) as seconds
from pgqueue.finished_jobs
where id between %(first)s and %(last)s
  and state = 'completed'

-- name: bench_dead_rows
select n_dead_tup as dead_rows
from pg_stat_user_tables
where relid = 'pgqueue.jobs'::regclass

-- name: bench_find_schema
select obj_description(oid, 'pg_namespace') as comment
from pg_namespace
where nspname = %(schema)s
