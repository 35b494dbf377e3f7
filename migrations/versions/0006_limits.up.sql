-- Limits: named caps across the fleet, tenants' turns, strict order by key, full queues.

update pgqueue.schema_info
set version = 6;

-- Rules by name: one of the code and one of an operator, which goes first while it holds. A declared
-- name may be a pattern such as tenant:{tenant}; it is the rule of every name that fits it.
create table pgqueue.limits (
  name text not null,
  declared boolean not null,
  -- The name as a pattern for `like`; null when it names one limit alone.
  pattern text,
  running integer,
  starts integer,
  per double precision,
  -- Only for ordered:…: whether a job that failed for good holds up those behind it.
  on_failure text,
  until timestamptz,
  set_at timestamptz not null default pgqueue.clock_now(),
  set_by text not null,
  constraint limits_pkey primary key (name, declared),
  constraint limits_running check (running >= 0),
  constraint limits_rate check (
    (starts is null) = (per is null) and starts >= 1 and per > 0 and per <= 86400
  ),
  constraint limits_caps check (running is not null or starts is not null),
  constraint limits_on_failure check (on_failure in ('hold', 'pass'))
);

-- What a task's jobs are limited by, as declared in code: so that every language gets the same.
create table pgqueue.task_limits (
  task text not null,
  names text[] not null,
  set_at timestamptz not null default pgqueue.clock_now(),
  constraint task_limits_pkey primary key (task)
);

-- Starts of jobs under limits with a rate: appended by the claim, dropped by age.
create table pgqueue.limit_starts (
  name text not null,
  at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index limit_starts_at on pgqueue.limit_starts (name, at);
create index limit_starts_age on pgqueue.limit_starts (at);

-- Whose turn it was last in a limit that several tenants wait for.
create table pgqueue.limit_turns (
  name text not null,
  tenant text not null,
  at timestamptz not null default pgqueue.clock_now(),
  constraint limit_turns_pkey primary key (name)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Keys of ordered_by that wait because one of their jobs failed for good.
create table pgqueue.order_holds (
  name text not null,
  job_id bigint not null,
  finished_at timestamptz not null,
  constraint order_holds_pkey primary key (name)
);

alter table pgqueue.queues
  -- Has a limit of its own: its jobs are admitted like all limited ones.
  add column limited boolean not null default false,
  add column max_queued integer,
  add constraint queues_max_queued check (max_queued >= 0);

create sequence pgqueue.admitted_seq;

alter table pgqueue.jobs
  -- Rises from one admission to the next. Whoever has it holds a slot of each of its limits.
  add column admitted_seq bigint,
  -- Nothing but an admission lets a limited job be claimed.
  add constraint jobs_admitted check (
    (admitted_seq is not null) = (limits <> '{}' and state in ('queued', 'running'))
  );

create index jobs_admitted on pgqueue.jobs (admitted_seq) where admitted_seq is not null;
create index jobs_blocked
  on pgqueue.jobs (blocked_on, coalesce(tenant, ''), priority desc, run_at, id)
  where blocked_on is not null;
create index jobs_later on pgqueue.jobs (run_at) where blocked_on = '@run_at';
create index jobs_ordered on pgqueue.jobs ((limits[1]), scheduled_at, id)
  where starts_with(limits[1], 'ordered:');

-- The state of a job that is ready to run: with limits it has to be admitted first.
create function pgqueue.ready_state(limits text[])
returns text
language sql
immutable parallel safe
as $$select case when limits = '{}' then 'queued' else 'blocked' end$$;

-- And its blocked_on: a newcomer, until the next admission finds the limit it waits for.
create function pgqueue.ready_on(limits text[])
returns text
language sql
immutable parallel safe
as $$select case when limits = '{}' then null else '@new' end$$;

-- The names of limits with a job's values in place of {tenant}, {queue}, {task} and {field of the
-- payload}. A name with a value that the job does not have is left out; an order has to be there.
create function pgqueue.render_limits(
  names text[],
  task text,
  queue text,
  tenant text,
  payload jsonb
)
returns text[]
language plpgsql
stable
set search_path = pg_catalog
as $$
#variable_conflict use_variable
declare
  known constant jsonb := payload
    || jsonb_strip_nulls(jsonb_build_object('task', task, 'queue', queue, 'tenant', tenant));
  template text;
  part text[];
  filled text;
  made text[] := '{}';
begin
  foreach template in array names loop
    filled := template;
    for part in select found from regexp_matches(template, '\{([a-z_][a-z0-9_]*)\}', 'gi') as found loop
      if part[1] = 'tenant' and tenant is null or known ->> part[1] is null then
        if starts_with(template, 'ordered:') then
          raise exception 'ordered_by names {%}, which this job does not have', part[1]
            using errcode = '22023';
        end if;
        filled := null;
        exit;
      end if;
      if jsonb_typeof(known -> part[1]) in ('object', 'array') then
        raise exception 'a limit names {%}, which is no text, number or boolean in this job', part[1]
          using errcode = '22023';
      end if;
      filled := replace(filled, '{' || part[1] || '}', known ->> part[1]);
    end loop;
    if octet_length(filled) > 500 then
      raise exception 'the limit % has % bytes in this job, and 500 is the most', template,
        octet_length(filled) using errcode = '22023';
    end if;
    if filled is not null and filled <> all(made) then
      made := made || filled;
    end if;
  end loop;
  return made;
end
$$;

-- The limits of a new job, by what is declared for its task; most have none.
create function pgqueue.limits_of(task text, queue text, tenant text, payload jsonb)
returns text[]
language sql
stable
as $$
  select coalesce(
    (
      select pgqueue.render_limits(
        task_limits.names, limits_of.task, limits_of.queue, limits_of.tenant, limits_of.payload
      )
      from pgqueue.task_limits
      where task_limits.task = limits_of.task
    ),
    '{}'
  )
$$;
