alter table pgqueue.jobs set (fillfactor = 85);

alter table pgqueue.jobs
  drop constraint jobs_queue,
  add constraint jobs_queue check (queue ~ '^[A-Za-z0-9_.:-]{1,100}$');

update pgqueue.schema_info
set version = 3;
