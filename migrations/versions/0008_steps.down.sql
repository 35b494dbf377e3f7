drop function pgqueue.deliver_events(integer);
drop function pgqueue.emit(text, text, jsonb, boolean);
drop table pgqueue.events;
drop table pgqueue.job_steps;

update pgqueue.schema_info
set version = 7;
