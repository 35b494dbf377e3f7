-- What a running handler says about its job; the lease proves that it still may.

-- name: write_progress
update pgqueue.jobs
set progress = jsonb_build_object(
  'percent', note.percent,
  'message', note.message,
  'at', pgqueue.clock_now()
)
from unnest(
  %(ids)s::bigint[],
  %(leases)s::bigint[],
  %(percents)s::double precision[],
  %(messages)s::text[]
) as note (id, lease, percent, message)
cross join lateral (
  select jobs.ctid as tid
  from pgqueue.jobs
  where jobs.id = note.id
    and jobs.lease = note.lease
  limit 1
  -- A stranger's open transaction must not hold up the notes and ends of other jobs.
  for update skip locked
) as held
where jobs.ctid = held.tid
returning jobs.id

-- name: write_logs
insert into pgqueue.job_logs (job_id, attempt, at, level, message)
select
  jobs.id,
  jobs.attempt,
  pgqueue.clock_now() - note.age * interval '1 second',
  note.level,
  note.message
from unnest(
  %(ids)s::bigint[],
  %(leases)s::bigint[],
  %(ages)s::double precision[],
  %(levels)s::text[],
  %(messages)s::text[]
) with ordinality as note (id, lease, age, level, message, place)
join pgqueue.jobs on jobs.id = note.id and jobs.lease = note.lease
order by note.place
