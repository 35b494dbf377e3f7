-- The schema before knows no job that waits for a limit.
drop function pgqueue.enqueue_v1(
  text, jsonb, text, integer, timestamptz, interval, text, text[], text, text, interval, integer,
  double precision, timestamptz, jsonb, interval, text[]
);
drop function pgqueue.backlog(text, integer);
drop view pgqueue.limit_usage;
drop function pgqueue.admit(text[], bigint, text, double precision, integer);
drop function pgqueue.limit_room(text, bigint, bigint);
drop function pgqueue.limit_rule(text);
drop function pgqueue.limits_of(text, text, text, jsonb);
drop function pgqueue.render_limits(text[], text, text, text, jsonb);
drop function pgqueue.ready_order(text[]);
drop function pgqueue.ready_on(text[]);
drop function pgqueue.ready_state(text[]);

drop index pgqueue.jobs_ordered;
drop index pgqueue.jobs_later;
drop index pgqueue.jobs_blocked;
drop index pgqueue.jobs_admitted;
alter table pgqueue.jobs
  drop column admitted_seq,
  drop column order_name;

update pgqueue.jobs
set
  state = case when state = 'blocked' then 'queued' else state end,
  blocked_on = null,
  limits = '{}',
  run_at = greatest(run_at, pgqueue.clock_now())
where limits <> '{}';

alter table pgqueue.queues
  drop column limited,
  drop column max_queued;

drop sequence pgqueue.admitted_seq;
drop table pgqueue.order_holds;
drop table pgqueue.limit_turns;
drop table pgqueue.limit_starts;
drop table pgqueue.task_limits;
drop table pgqueue.limits;

update pgqueue.schema_info
set version = 5;
