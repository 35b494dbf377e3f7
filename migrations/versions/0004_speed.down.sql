update pgqueue.chores
set every = case name when 'rescue' then interval '3 seconds' else interval '5 seconds' end
where name in ('rescue', 'expiry');

alter table pgqueue.jobs set (fillfactor = 85);

alter table pgqueue.jobs
  drop constraint jobs_queue,
  add constraint jobs_queue check (queue ~ '^[A-Za-z0-9_.:-]{1,100}$');

update pgqueue.schema_info
set version = 3;
