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
  -- Only for ordered:NAME: whether a job that failed for good holds up those behind it.
  on_failure text,
  until timestamptz,
  set_at timestamptz not null default pgqueue.clock_now(),
  set_by text not null,
  constraint limits_pkey primary key (name, declared),
  -- What begins with @ is a place where a job waits that is no limit.
  constraint limits_name check (name ~ '^[A-Za-z0-9]' and octet_length(name) <= 500),
  constraint limits_running check (running >= 0),
  constraint limits_rate check (
    (starts is null) = (per is null) and starts >= 1 and per > 0 and per <= 86400
  ),
  constraint limits_caps check (running is not null or starts is not null),
  constraint limits_on_failure check (on_failure in ('hold', 'pass'))
);

-- Each look for a rule reads all that code declares, and nothing of what operators set for others.
create index limits_declared on pgqueue.limits (name) where declared;

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
  -- The order it stands in: its first limit, if that is one, from when on it is ready.
  add column order_name text;

-- Each of these costs every insert of a job something, also where it takes no entry: hence tests for
-- null, no index for what can do without, and no CHECK, which cost 6 µs a job. The claims see to it
-- that nobody runs who was not let in.
create index jobs_admitted on pgqueue.jobs (admitted_seq) where admitted_seq is not null;
create index jobs_blocked
  on pgqueue.jobs (blocked_on collate "C", coalesce(tenant, ''), priority desc, run_at, id)
  where blocked_on is not null;
create index jobs_later on pgqueue.jobs (run_at) where blocked_on = '@run_at';
create index jobs_ordered on pgqueue.jobs (order_name, scheduled_at, id)
  where order_name is not null;

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

-- And its order_name. A newcomer without it would be passed by those behind it until its first pass.
create function pgqueue.ready_order(limits text[])
returns text
language sql
immutable parallel safe
as $$select case when starts_with(limits[1], 'ordered:') then limits[1] end$$;

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
    for part in
      select braces.field from regexp_matches(template, '\{([A-Za-z_][A-Za-z0-9_]*)\}', 'g') as braces (field)
    loop
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
    if filled !~ '^[A-Za-z0-9]' then
      raise exception 'the limit % is not valid: its name begins with a letter or a digit',
        quote_literal(filled) using errcode = '22023';
    end if;
    if octet_length(filled) > 500 then
      raise exception 'the limit % has % bytes in this job, and 500 is the most', template,
        octet_length(filled) using errcode = '22023';
    end if;
    continue when filled is null or filled = any(made);
    if not starts_with(filled, 'ordered:') then
      made := made || filled;
    elsif starts_with(made[1], 'ordered:') then
      raise exception 'a job is in one order at most, and this one in % and %',
        quote_literal(made[1]), quote_literal(filled) using errcode = '22023';
    else
      -- Where everybody looks for it.
      made := filled || made;
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

-- What holds for a limit of this name: what an operator has set, and else what the code declares for
-- it or for the pattern that it fits with the longest fixed beginning, of these the one that says most
-- of it: `api:a:now` is of `api:{account}:now`, not of `api:{account}`. Nulls: nothing does.
create function pgqueue.limit_rule(limit_name text)
returns table (
  running integer,
  starts integer,
  per double precision,
  on_failure text,
  until timestamptz,
  -- From when on it holds.
  since timestamptz
)
language sql
stable
as $$
  with
    of_code as (
      select name, running, starts, per, on_failure, set_at
      from pgqueue.limits
      where declared
        and (name = limit_name or limit_name like pattern)
      order by name <> limit_name, strpos(name, '{') desc, length(pattern) desc, name
      limit 1
    ),
    of_operators as (
      select
        name, running, starts, per, until,
        until is null or until > pgqueue.clock() as holds,
        case when until <= pgqueue.clock() then until else set_at end as changed_at
      from pgqueue.limits
      where not declared
        and name in (limit_name, (select name from of_code))
    ),
    chosen as (
      select running, starts, per, until
      from of_operators
      where holds
      order by name <> limit_name
      limit 1
    )
  select
    coalesce(chosen.running, of_code.running),
    coalesce(chosen.starts, of_code.starts),
    case when chosen.starts is null then of_code.per else chosen.per end,
    of_code.on_failure,
    chosen.until,
    greatest(of_code.set_at, (select max(changed_at) from of_operators))
  from (values (true)) as always (one)
  left join of_code on true
  left join chosen on true
$$;

-- How many more jobs a limit lets in, where so many hold a slot and so many of these have not begun;
-- and if its rate is used up, in how many seconds to look again.
create function pgqueue.limit_room(limit_name text, used bigint, unstarted bigint)
returns table (room bigint, wait double precision)
language sql
stable
as $$
  select
    case
      when starts_with(limit_name, 'ordered:') then 1 - used
      else least(
        2000000000,
        rule.running - used - coalesce(uncounted.jobs, 0),
        rule.starts - lately.starts - unstarted
      )
    end,
    case when rule.starts <= lately.starts + unstarted then lately.wait end
  from pgqueue.limit_rule(limit_name) as rule
  cross join lateral (
    select
      count(*) as starts,
      extract(epoch from min(at) - pgqueue.clock()) + rule.per as wait
    from (
      select at
      from pgqueue.limit_starts
      where limit_starts.name = limit_name
        and limit_starts.at > pgqueue.clock() - rule.per * interval '1 second'
      order by at desc
      limit rule.starts
    ) as latest
    where rule.starts is not null
  ) as lately
  -- What ran in a queue before it had a limit.
  cross join lateral (
    select
      case
        when starts_with(limit_name, 'queue:') then (
          select count(*)
          from pgqueue.jobs
          where jobs.state = 'running'
            and jobs.admitted_seq is null
            and jobs.queue = substr(limit_name, 7)
        )
      end as jobs
  ) as uncounted
$$;

-- One pass of admission: lets as many blocked jobs in as their limits have room for. `named` are
-- limits whose jobs have ended; newcomers are always looked at, and of the other lines a slice, which
-- goes on where the last one `reached`. Below `lowest` no admission lives. At most `most` jobs.
-- In a transaction of its own: each statement in here has to see what was committed before the lock
-- was got. One call, so that a caller who is stopped in the middle holds up nobody.
create function pgqueue.admit(
  named text[],
  lowest bigint,
  after text,
  alive double precision,
  most integer default 500
)
returns table (
  ran boolean,
  admitted integer,
  -- Of the jobs that were let in.
  queues text[],
  lowest_live bigint,
  reached text,
  -- Seconds until a pass may have something to do; null when nothing waits.
  wait double precision,
  -- Whether what waits may come in without anybody's doing: slots are held, or a rate opens.
  moving boolean,
  -- Whether somebody was let in before and is not claimed yet.
  unclaimed boolean,
  -- Of the lines that were named or got newcomers, those it did not come to the end of: for the next one.
  unseen text[]
)
language plpgsql
set search_path = pg_catalog
-- Whatever the statistics say, and whatever the caller has set.
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $body$
declare
  seen_at constant timestamptz := pgqueue.clock();
  slots jsonb;
  unstarted jsonb;
  rooms jsonb := '{}';
  lines text[] := '{}';
  line text;
  place text;
  one text;
  candidate record;
  looked record;
  arrivals bigint[];
  arrived_at text[];
  limited_queues text[];
  served text[] := '{}';
  turn text;
  last_turn text;
  is_first boolean;
  stays integer;
  is_again boolean;
  full_ones text[];
  has_wrapped boolean;
  has_progress boolean;
  has_found boolean := false;
  steps integer := 0;
  moved integer;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'admission needs read committed: it has to see what others have admitted'
      using errcode = '25001';
  end if;
  ran := pg_try_advisory_xact_lock(
    hashtextextended('pgqueue.jobs'::regclass::oid::text || ' admission', 0)
  );
  admitted := 0;
  queues := '{}';
  unseen := '{}';
  moving := false;
  unclaimed := false;
  lowest_live := lowest;
  reached := after;
  if not ran then
    return next;
    return;
  end if;

  -- After a crash of the server, or on a standby, the numbers begin again where they were a while ago:
  -- admissions are not durable.
  if lowest > (select last_value + 1 from pgqueue.admitted_seq) then
    lowest := 0;
  end if;

  -- Nobody wants them: the slots are for others.
  update pgqueue.jobs
  set
    state = 'blocked',
    blocked_on = '@new',
    admitted_seq = null,
    run_at = pgqueue.clock_now()
  where ctid = any(array(
    select ctid
    from pgqueue.jobs
    where admitted_seq >= lowest
      -- Not `state = 'queued'`: with the index of those all queued jobs would be read.
      and lease is null
      and run_at < pgqueue.clock() - interval '30 seconds'
    limit most
    for update skip locked
  ));

  -- Their queue was resumed, or a worker that serves them has come.
  for place in
    with recursive places as (
      (
        select blocked_on collate "C" as name
        from pgqueue.jobs
        where blocked_on collate "C" >= '@'
        order by blocked_on collate "C"
        limit 1
      )
      union all
      select following.name
      from places
      cross join lateral (
        select blocked_on collate "C" as name
        from pgqueue.jobs
        where blocked_on collate "C" > places.name
          and blocked_on collate "C" < 'A'
        order by blocked_on collate "C"
        limit 1
      ) as following
    )
    select name
    from places
    where starts_with(name, '@queue:') or starts_with(name, '@worker:')
  loop
    continue when starts_with(place, '@queue:') and exists (
      select from pgqueue.queues where name = substr(place, 8) and paused
    );
    continue when starts_with(place, '@worker:') and not exists (
      select
      from pgqueue.workers
      where heartbeat_at > seen_at - alive * interval '1 second'
        and (workers.queues = '{}' or split_part(substr(place, 9), '/', 1) = any(workers.queues))
        and split_part(substr(place, 9), '/', 2) = any(tasks)
    );
    update pgqueue.jobs
    set blocked_on = '@new'
    where ctid = any(array(
      select ctid
      from pgqueue.jobs
      where blocked_on collate "C" = place
      limit most
      for update skip locked
    ));
  end loop;

  -- Jobs of queues that have a limit, which came by the way of jobs without.
  limited_queues := array(select name from pgqueue.queues where limited);
  foreach one in array limited_queues loop
    update pgqueue.jobs
    set
      state = 'blocked',
      blocked_on = '@new',
      limits = array['queue:' || one]
    where ctid = any(array(
      select found.tid
      from generate_series(9, 0, -1) as lanes (priority)
      cross join lateral (
        select ctid as tid
        from pgqueue.jobs
        where jobs.state = 'queued'
          and jobs.queue = one
          and jobs.priority = lanes.priority
          and jobs.admitted_seq is null
        order by jobs.run_at, jobs.id
        limit most
        for update skip locked
      ) as found
      limit most
    ));
  end loop;

  update pgqueue.jobs
  set blocked_on = '@new'
  where ctid = any(array(
    select ctid
    from pgqueue.jobs
    where blocked_on = '@run_at'
      and run_at <= pgqueue.clock()
    order by run_at
    limit most
    for update skip locked
  ));

  select
    coalesce(jsonb_object_agg(held.name, held.jobs), '{}'),
    coalesce(jsonb_object_agg(held.name, held.queued), '{}')
  into slots, unstarted
  from (
    select names.name, count(*) as jobs, count(*) filter (where state = 'queued') as queued
    from pgqueue.jobs
    cross join unnest(
      case
        -- It was let in before its queue had a limit.
        when queue = any(limited_queues) and 'queue:' || queue <> all(limits)
          then limits || ('queue:' || queue)
        else limits
      end
    ) as names (name)
    where admitted_seq >= lowest
    group by names.name
  ) as held;
  lowest_live := coalesce(
    (select min(admitted_seq) from pgqueue.jobs where admitted_seq >= lowest),
    (select last_value + is_called::integer from pgqueue.admitted_seq)
  );

  unclaimed := exists (select from jsonb_each_text(unstarted) where value <> '0');

  -- Newcomers go to the line of the first of their limits that is full, and of several tenants each
  -- as many as the others.
  with recursive tenants as (
    (
      select coalesce(tenant, '') as tenant, 1 as nth
      from pgqueue.jobs
      where blocked_on collate "C" = '@new'
      order by coalesce(tenant, '')
      limit 1
    )
    union all
    select following.tenant, tenants.nth + 1
    from tenants
    cross join lateral (
      select coalesce(tenant, '') as tenant
      from pgqueue.jobs
      where blocked_on collate "C" = '@new'
        and coalesce(tenant, '') > tenants.tenant
      order by coalesce(tenant, '')
      limit 1
    ) as following
    where tenants.nth < 100
  )
  select array_agg(heads.id)
  into arrivals
  from (
    select found.id
    from tenants
    cross join lateral (
      select id
      from pgqueue.jobs
      where blocked_on collate "C" = '@new'
        and coalesce(jobs.tenant, '') = tenants.tenant
      order by priority desc, run_at, id
      -- Few at a time: while a crowd finds its lines, others are let in.
      limit greatest(1, 100 / (select count(*) from tenants))
      for update skip locked
    ) as found
  ) as heads;
  if arrivals is not null then
    for one in
      select distinct names.name
      from pgqueue.jobs
      cross join unnest(limits) as names (name)
      where id = any(arrivals)
        and cardinality(limits) > 1
        and not starts_with(limits[1], 'ordered:')
    loop
      select room, limit_room.wait
      into looked
      from pgqueue.limit_room(
        one, coalesce((slots ->> one)::bigint, 0), coalesce((unstarted ->> one)::bigint, 0)
      );
      rooms := rooms || jsonb_build_object(one, looked.room);
      wait := least(wait, looked.wait);
    end loop;
    with parked as (
      update pgqueue.jobs
      set
        order_name = pgqueue.ready_order(limits),
        blocked_on = case
          -- It came back marked. Whoever ends what is over ends it: it waits for no slot.
          when cancel_requested_at is not null then '@cancel'
          when run_at > pgqueue.clock() then '@run_at'
          when starts_with(limits[1], 'ordered:') then limits[1]
          else coalesce(
            (
              select names.name
              from unnest(limits) with ordinality as names (name, nth)
              where (rooms ->> names.name)::bigint <= 0
              order by names.nth
              limit 1
            ),
            limits[1]
          )
        end
      where id = any(arrivals)
      returning blocked_on
    )
    select array_agg(distinct blocked_on)
    into arrived_at
    from parked;
  end if;

  -- The lines to look at.
  lines := array(
    with recursive places as (
      (
        select blocked_on collate "C" as name, 1 as nth
        from pgqueue.jobs
        where blocked_on collate "C" > after
        order by blocked_on collate "C"
        limit 1
      )
      union all
      select following.name, places.nth + 1
      from places
      cross join lateral (
        select blocked_on collate "C" as name
        from pgqueue.jobs
        where blocked_on collate "C" > places.name
        order by blocked_on collate "C"
        limit 1
      ) as following
      where places.nth < 64
    )
    select name
    from places
    order by nth
  );
  reached := case when cardinality(lines) = 64 then lines[64] else '' end;
  lines := array(
    select names.name
    from unnest(lines || named || arrived_at) as names (name)
    where not starts_with(names.name, '@')
    group by names.name
    order by
      -- Those of one tenant last: before, they would take the slots of limits that he shares with
      -- others without waiting for his turn there.
      (
        select strpos(names.name, tenant) > 0
        from pgqueue.jobs
        where blocked_on collate "C" = names.name
        order by coalesce(tenant, '') desc
        limit 1
      ) is true,
      -- A pass may end before it has seen all: not always the same ones are to be left.
      random()
  );

  foreach line in array lines loop
    if steps >= most then
      unseen := unseen || line;
      continue;
    end if;
    turn := null;
    last_turn := null;
    has_wrapped := false;
    has_progress := false;
    is_first := true;
    stays := 0;
    is_again := false;
    full_ones := '{}';
    if not rooms ? line then
      select room, limit_room.wait
      into looked
      from pgqueue.limit_room(
        line, coalesce((slots ->> line)::bigint, 0), coalesce((unstarted ->> line)::bigint, 0)
      );
      rooms := rooms || jsonb_build_object(line, looked.room);
      wait := least(wait, looked.wait);
    end if;
    continue when (rooms ->> line)::bigint <= 0;
    if starts_with(line, 'ordered:') then
      -- Its job that failed for good holds it, until that one is retried or deleted.
      delete from pgqueue.order_holds
      where ctid = any(array(
        select ctid
        from pgqueue.order_holds
        where name = line
          and (
            exists (select from pgqueue.jobs where jobs.id = order_holds.job_id)
            or not exists (
              select
              from pgqueue.finished_jobs
              where finished_jobs.id = order_holds.job_id
                and finished_jobs.finished_at = order_holds.finished_at
                and finished_jobs.state = 'failed'
            )
          )
        -- Whoever ends that job just now holds it anew, and may stand still over that.
        for update skip locked
      ));
      continue when exists (select from pgqueue.order_holds where name = line);
    else
      select limit_turns.tenant into turn from pgqueue.limit_turns where name = line;
      is_first := turn is null;
    end if;

    loop
      exit when steps >= most or (rooms ->> line)::bigint <= 0;
      if starts_with(line, 'ordered:') then
        exit when has_wrapped;
        has_wrapped := true;
        -- Not the first that is free: who comes after one whose row is locked is not the next.
        select id, state, blocked_on
        into candidate
        from pgqueue.jobs
        where order_name = line
        order by scheduled_at, id
        limit 1;
        exit when candidate.blocked_on is distinct from line;
        select id, queue, task, limits, run_at, scheduled_at
        into candidate
        from pgqueue.jobs
        where id = candidate.id
          and blocked_on = line
        for update skip locked;
        exit when not found;
      else
        if stays = 0 and not is_again then
          if is_first then
            select coalesce(tenant, '')
            into turn
            from pgqueue.jobs
            where blocked_on collate "C" = line
            order by coalesce(tenant, '')
            limit 1;
          else
            select coalesce(tenant, '') as tenant
            into looked
            from pgqueue.jobs
            where blocked_on collate "C" = line
              and coalesce(tenant, '') > turn
            order by coalesce(tenant, '')
            limit 1;
            if found then
              turn := looked.tenant;
            end if;
          end if;
          if not found then
            exit when is_first or (has_wrapped and not has_progress);
            has_wrapped := true;
            has_progress := false;
            is_first := true;
            continue;
          end if;
          is_first := false;
        end if;
        is_again := false;
        if stays = 0 then
          select id, queue, task, limits, run_at, scheduled_at
          into candidate
          from pgqueue.jobs
          where blocked_on collate "C" = line
            and coalesce(tenant, '') = turn
          order by priority desc, run_at, id
          limit 1
          for update skip locked;
        else
          -- The head has gone to another line. One behind it may wait for nothing else; to move all
          -- that do would cost more than to look at some.
          select id, queue, task, limits, run_at, scheduled_at
          into candidate
          from pgqueue.jobs
          where blocked_on = line
            and id = (
              select heads.id
              from (
                select id, limits
                from pgqueue.jobs
                where blocked_on collate "C" = line
                  and coalesce(tenant, '') = turn
                order by priority desc, run_at, id
                limit 100
              ) as heads
              where not heads.limits && full_ones
              limit 1
            )
          for update skip locked;
        end if;
        if not found and stays > 0 and exists (
          select
          from (
            select limits
            from pgqueue.jobs
            where blocked_on collate "C" = line
              and coalesce(tenant, '') = turn
            order by coalesce(tenant, '') desc, priority, run_at desc, id desc
            limit 1
          ) as tail
          where not tail.limits && full_ones
        ) then
          -- Who stands at the end waits for nothing else, and is kept out by those before him: they go
          -- where they wait. Where all wait for the other limit, they would only go to and fro.
          update pgqueue.jobs
          set blocked_on = (
            select names.name
            from unnest(limits) with ordinality as names (name, nth)
            where names.name = any(full_ones)
            order by names.nth
            limit 1
          )
          where ctid = any(array(
            select front.tid
            from (
              select ctid as tid, limits
              from pgqueue.jobs
              where blocked_on collate "C" = line
                and coalesce(tenant, '') = turn
              order by priority desc, run_at, id
              limit 200
              for update skip locked
            ) as front
            where front.limits && full_ones
          ));
          get diagnostics moved = row_count;
          steps := steps + 50;
          is_again := moved > 0;
          stays := 0;
          continue;
        end if;
        if not found then
          stays := 0;
          continue;
        end if;
      end if;
      steps := steps + 1;

      -- A queue that got its limit after this job had come.
      if exists (select from pgqueue.queues where name = candidate.queue and limited)
        and 'queue:' || candidate.queue <> all(candidate.limits)
      then
        candidate.limits := candidate.limits || ('queue:' || candidate.queue);
      end if;
      place := null;
      if candidate.run_at > seen_at then
        place := '@run_at';
      elsif candidate.queue || '/' || candidate.task <> all(served) then
        if exists (select from pgqueue.queues where name = candidate.queue and paused) then
          place := '@queue:' || candidate.queue;
        elsif not exists (
          select
          from pgqueue.workers
          where heartbeat_at > seen_at - alive * interval '1 second'
            and (workers.queues = '{}' or candidate.queue = any(workers.queues))
            and candidate.task = any(tasks)
        ) then
          place := '@worker:' || candidate.queue || '/' || candidate.task;
        else
          served := served || (candidate.queue || '/' || candidate.task);
        end if;
      end if;
      if place is null then
        foreach one in array candidate.limits loop
          if not rooms ? one then
            select room, limit_room.wait
            into looked
            from pgqueue.limit_room(
              one, coalesce((slots ->> one)::bigint, 0), coalesce((unstarted ->> one)::bigint, 0)
            );
            rooms := rooms || jsonb_build_object(one, looked.room);
            wait := least(wait, looked.wait);
          end if;
          if (rooms ->> one)::bigint <= 0
            or starts_with(one, 'ordered:') and (
              exists (
                select
                from pgqueue.jobs
                where jobs.order_name = one
                  and (jobs.scheduled_at, jobs.id) < (candidate.scheduled_at, candidate.id)
              )
              -- One that came back while this one stood in another line, and failed again.
              or starts_with(line, 'ordered:') is false
              and exists (select from pgqueue.order_holds where name = one)
            )
          then
            place := one;
            full_ones := full_ones || one;
            exit;
          end if;
        end loop;
      end if;

      if place is not null then
        update pgqueue.jobs
        set blocked_on = place, limits = candidate.limits
        where id = candidate.id;
        -- The same tenant's next one: those that wait for no limit are taken out of the line.
        is_again := starts_with(place, '@');
        stays := case when is_again or stays = 20 then 0 else stays + 1 end;
        continue;
      end if;
      update pgqueue.jobs
      set
        state = 'queued',
        blocked_on = null,
        limits = candidate.limits,
        admitted_seq = nextval('pgqueue.admitted_seq'),
        run_at = greatest(run_at, pgqueue.clock_now())
      where id = candidate.id;
      foreach one in array candidate.limits loop
        rooms := rooms || jsonb_build_object(one, (rooms ->> one)::bigint - 1);
      end loop;
      admitted := admitted + 1;
      if candidate.queue <> all(admit.queues) then
        admit.queues := admit.queues || candidate.queue;
      end if;
      has_progress := true;
      -- A line with room that nobody has named: its limit was raised, or who freed it has died.
      has_found := has_found or (line = any(named || arrived_at)) is not true;
      last_turn := turn;
      stays := 0;
    end loop;

    if steps >= most and (rooms ->> line)::bigint > 0 then
      unseen := unseen || line;
    end if;
    if last_turn is not null and (
      exists (
        select
        from pgqueue.jobs
        where blocked_on collate "C" = line
          and coalesce(tenant, '') > last_turn
      )
      or exists (
        select
        from pgqueue.jobs
        where blocked_on collate "C" = line
          and coalesce(tenant, '') < last_turn
      )
    ) then
      insert into pgqueue.limit_turns (name, tenant)
      values (line, last_turn)
      on conflict (name) do update
      set tenant = excluded.tenant, at = excluded.at;
    end if;
  end loop;

  unseen := array(
    select unnest(unseen)
    intersect
    select unnest(named || arrived_at)
  );
  -- So far only a rate has said when it opens.
  moving := slots <> '{}' or admitted > 0 or wait is not null;
  if steps >= most
    -- Where one such line is there are more, and a slice is small.
    or has_found and reached <> ''
    or exists (select from pgqueue.jobs where blocked_on collate "C" = '@new')
  then
    wait := 0;
  end if;
  wait := least(
    wait,
    extract(epoch from (
      select min(run_at) from pgqueue.jobs where blocked_on = '@run_at'
    ) - pgqueue.clock_now()),
    case
      when exists (select from pgqueue.jobs where blocked_on collate "C" < '@run_at')
        or exists (select from pgqueue.jobs where blocked_on collate "C" > '@run_at')
        then 1
    end
  );
  -- Of nulls greatest() would make 0.
  if wait < 0 then
    wait := 0;
  end if;
  return next;
end
$body$;

-- Every limit that is set, held or waited for: how many hold a slot, how many slots are free, how
-- many jobs stand in its line. A job stands in one line at a time.
create view pgqueue.limit_usage as
select
  names.name,
  rule.running,
  rule.starts,
  rule.per,
  rule.on_failure,
  coalesce(held.jobs, 0) as used,
  greatest(0, rule.running - coalesce(held.jobs, 0)) as free,
  (
    select count(*)
    from pgqueue.limit_starts
    where limit_starts.name = names.name
      and limit_starts.at > pgqueue.clock() - rule.per * interval '1 second'
  ) as started,
  coalesce(line.jobs, 0) as waiting,
  rule.until,
  rule.since
from (
  select name
  from pgqueue.limits
  where pattern is null
    and (declared or until is null or until > pgqueue.clock())
  union
  select unnest(limits) from pgqueue.jobs where admitted_seq is not null
  union
  select blocked_on from pgqueue.jobs where blocked_on is not null
) as names
cross join lateral pgqueue.limit_rule(names.name) as rule
left join (
  select unnest(limits) as name, count(*) as jobs
  from pgqueue.jobs
  where admitted_seq is not null
  group by 1
) as held on held.name = names.name
left join (
  select blocked_on as name, count(*) as jobs
  from pgqueue.jobs
  where blocked_on is not null
  group by 1
) as line on line.name = names.name
where not starts_with(names.name, '@');

-- Tasks with jobs that are due and that no live worker of their queue knows; of limited jobs those that
-- stand in no line.
create or replace view pgqueue.unknown_tasks as
select due.task, due.queue, due.jobs, due.oldest_run_at
from (
  select task, queue, count(*) as jobs, min(run_at) as oldest_run_at
  from pgqueue.jobs
  where (
      state = 'queued'
      or blocked_on collate "C" = '@new'
      or starts_with(blocked_on, '@worker:')
    )
    and run_at <= pgqueue.clock()
  group by task, queue
) as due
where not exists (
  select
  from pgqueue.workers
  where workers.heartbeat_at > pgqueue.clock() - interval '15 seconds'
    and (cardinality(workers.queues) = 0 or due.queue = any(workers.queues))
    and due.task = any(workers.tasks)
);

-- As before, limited jobs included, and: `order-held`, the first of an order that waits because a job
-- before it failed for good, since that one's end.
create or replace view pgqueue.stuck_jobs as
select jobs.id, jobs.task, jobs.queue, jobs.state, jobs.worker_id, stuck.reason, stuck.since
from pgqueue.jobs
left join pgqueue.workers on workers.id = jobs.worker_id
cross join lateral (
  values
    (
      'worker-died',
      coalesce(workers.heartbeat_at, jobs.started_at) + interval '15 seconds',
      workers.id is null or workers.heartbeat_at < pgqueue.clock() - interval '15 seconds'
    ),
    (
      'over-timeout',
      jobs.started_at + jobs.timeout * interval '1 second',
      jobs.started_at + (jobs.timeout + 10) * interval '1 second' < pgqueue.clock()
    ),
    (
      'cancel-ignored',
      jobs.cancel_requested_at,
      jobs.cancel_requested_at < pgqueue.clock() - interval '10 seconds'
    )
) as stuck (reason, since, is_so)
where jobs.state = 'running'
  and stuck.is_so
union all
select jobs.id, jobs.task, jobs.queue, jobs.state, jobs.worker_id, 'no-worker', jobs.run_at
from pgqueue.unknown_tasks
join pgqueue.jobs using (task, queue)
where (
    jobs.state = 'queued'
    or jobs.blocked_on collate "C" = '@new'
    or starts_with(jobs.blocked_on, '@worker:')
  )
  and jobs.run_at < pgqueue.clock() - interval '5 minutes'
  and not exists (
    select
    from pgqueue.queues
    where queues.name = jobs.queue
      and queues.paused
  )
union all
select
  heads.id, heads.task, heads.queue, heads.state, heads.worker_id, 'order-held', held.finished_at
from pgqueue.order_holds as held
cross join lateral (
  select id, task, queue, state, worker_id
  from pgqueue.jobs
  where jobs.order_name = held.name
  order by scheduled_at, id
  limit 1
) as heads
-- Retried, deleted or dropped: the next pass lets the order go on.
where heads.id <> held.job_id
  and not exists (select from pgqueue.jobs where jobs.id = held.job_id)
  and exists (
    select
    from pgqueue.finished_jobs
    where finished_jobs.id = held.job_id
      and finished_jobs.finished_at = held.finished_at
      and finished_jobs.state = 'failed'
  );

-- About how many jobs of a queue wait: queued, scheduled or blocked; counts `most` and 20,000 blocked
-- ones of all queues, and no further.
create function pgqueue.backlog(queue text, most integer)
returns bigint
language sql
stable
as $$
  select (
    select count(*)
    from (
      select
      from pgqueue.jobs
      where jobs.queue = backlog.queue
        and jobs.state = 'queued'
      limit backlog.most
    ) as queued
  ) + (
    select count(*)
    from (
      -- Of all blocked ones, not more than so many are looked at.
      select jobs.queue
      from pgqueue.jobs
      where jobs.blocked_on is not null
      limit backlog.most + 20000
    ) as blocked
    where blocked.queue = backlog.queue
  )
$$;

drop function pgqueue.enqueue_v1(
  text, jsonb, text, integer, timestamptz, interval, text, text[], text, text, interval, integer,
  double precision, timestamptz, jsonb, interval
);

-- As before, and: `limits` are the names of the job's limits as declared, with {tenant} and the like
-- in them; null for what is declared for its task. Raises PQ001 for a queue that is full, too.
create function pgqueue.enqueue_v1(
  task text,
  payload jsonb default '{}',
  queue text default 'default',
  priority integer default 5,
  run_at timestamptz default null,
  delay interval default null,
  tenant text default null,
  tags text[] default '{}',
  unique_key text default null,
  unique_mode text default 'skip',
  unique_for interval default null,
  max_attempts integer default 1,
  timeout double precision default null,
  expires_at timestamptz default null,
  headers jsonb default '{}',
  unique_wait interval default '5 seconds',
  limits text[] default null
) returns table (job_id bigint, is_new boolean)
  language plpgsql
  set search_path = pg_catalog
  as $body$
#variable_conflict use_column
declare
  -- Beyond, a time cannot be read back in every zone: one such job would stop whoever claims it.
  earliest constant timestamptz := '1970-01-01 00:00:00+00';
  latest constant timestamptz := '9998-12-31 00:00:00+00';
  due timestamptz;
  new_id bigint;
  holder_id bigint;
  holder_state text;
  waiting_limit integer;
  longest_tag integer;
  job_limits text[];
  queue_limit integer;
  previous_wait text := current_setting('lock_timeout');
begin
  if enqueue_v1.task is null or enqueue_v1.task ~ '[^A-Za-z0-9_.:-]'
    or length(enqueue_v1.task) not between 1 and 200
  then
    raise exception 'task name % is not valid: 1 to 200 letters, digits and the signs _ . : -',
      coalesce(quote_literal(enqueue_v1.task), 'null') using errcode = '22023';
  end if;
  if enqueue_v1.queue is null or enqueue_v1.queue ~ '[^A-Za-z0-9_.:-]'
    or length(enqueue_v1.queue) not between 1 and 100
  then
    raise exception 'queue name % is not valid: 1 to 100 letters, digits and the signs _ . : -',
      coalesce(quote_literal(enqueue_v1.queue), 'null') using errcode = '22023';
  end if;
  if enqueue_v1.priority is null or enqueue_v1.priority not between 0 and 9 then
    raise exception 'priority % is not valid: 0 to 9, higher first',
      coalesce(enqueue_v1.priority::text, 'null') using errcode = '22023';
  end if;
  if enqueue_v1.payload is null or jsonb_typeof(enqueue_v1.payload) <> 'object' then
    raise exception 'payload must be a JSON object' using errcode = '22023';
  end if;
  if octet_length(enqueue_v1.payload::text) > 1000000 then
    raise exception 'payload has % bytes, and 1000000 is the most',
      octet_length(enqueue_v1.payload::text) using errcode = '22023';
  end if;
  if enqueue_v1.run_at is not null and enqueue_v1.delay is not null then
    raise exception 'run_at and delay exclude each other: give one of them' using errcode = '22023';
  end if;
  if enqueue_v1.delay not between interval '0' and interval '100 years' then
    raise exception 'delay % is not valid: 0 seconds or more, 100 years at most', enqueue_v1.delay
      using errcode = '22023';
  end if;
  if enqueue_v1.run_at not between earliest and latest then
    raise exception 'run_at % is not valid: from the year 1970 to 9998', enqueue_v1.run_at
      using errcode = '22023';
  end if;
  if enqueue_v1.expires_at not between earliest and latest then
    raise exception 'expires_at % is not valid: from the year 1970 to 9998', enqueue_v1.expires_at
      using errcode = '22023';
  end if;
  if octet_length(enqueue_v1.tenant) not between 1 and 200 then
    raise exception 'tenant is not valid: 1 to 200 bytes' using errcode = '22023';
  end if;
  if array_ndims(enqueue_v1.tags) > 1 then
    raise exception 'tags must be an array of one dimension' using errcode = '22023';
  end if;
  if enqueue_v1.tags is null or array_position(enqueue_v1.tags, null) is not null then
    raise exception 'tags must be an array without null' using errcode = '22023';
  end if;
  if cardinality(enqueue_v1.tags) > 100 then
    raise exception '% tags are too many: 100 at most', cardinality(enqueue_v1.tags)
      using errcode = '22023';
  end if;
  if cardinality(enqueue_v1.tags) > 0 then
    longest_tag := (select max(octet_length(tag)) from unnest(enqueue_v1.tags) as tag);
    if longest_tag > 200 then
      raise exception 'a tag has % bytes, and 200 is the most', longest_tag using errcode = '22023';
    end if;
  end if;
  if enqueue_v1.headers is null or jsonb_typeof(enqueue_v1.headers) <> 'object' then
    raise exception 'headers must be a JSON object' using errcode = '22023';
  end if;
  if enqueue_v1.max_attempts is null or enqueue_v1.max_attempts < 1 then
    raise exception 'max_attempts is not valid: 1 or more' using errcode = '22023';
  end if;
  -- NaN counts as greater than every number here.
  if enqueue_v1.timeout <= 0 or enqueue_v1.timeout > 3162240000 then
    raise exception 'timeout % is not valid: more than 0 seconds, 100 years at most',
      enqueue_v1.timeout
      using errcode = '22023';
  end if;
  if enqueue_v1.unique_mode is null or enqueue_v1.unique_mode not in ('skip', 'replace', 'raise') then
    raise exception 'unique_mode % is not valid: skip, replace, raise',
      coalesce(quote_literal(enqueue_v1.unique_mode), 'null') using errcode = '22023';
  end if;
  if enqueue_v1.unique_for is not null and enqueue_v1.unique_key is null then
    raise exception 'unique_for needs a unique_key' using errcode = '22023';
  end if;
  -- A longer one does not fit into its index.
  if octet_length(enqueue_v1.unique_key) not between 1 and 2600 then
    raise exception 'unique_key is not valid: 1 to 2600 bytes' using errcode = '22023';
  end if;
  if enqueue_v1.unique_for <= interval '0' or enqueue_v1.unique_for > interval '100 years' then
    raise exception 'unique_for % is not valid: more than 0 seconds, 100 years at most',
      enqueue_v1.unique_for using errcode = '22023';
  end if;
  -- As a lock_timeout, 0 would mean for ever.
  if enqueue_v1.unique_wait is null
    or enqueue_v1.unique_wait < interval '1 millisecond'
    or enqueue_v1.unique_wait > interval '1 day'
  then
    raise exception 'unique_wait % is not valid: more than 0 seconds, 86400 at most',
      coalesce(enqueue_v1.unique_wait::text, 'null') using errcode = '22023';
  end if;
  due := coalesce(
    enqueue_v1.run_at,
    pgqueue.clock_now() + coalesce(enqueue_v1.delay, interval '0')
  );

  if enqueue_v1.tenant is not null then
    select max_waiting
    into waiting_limit
    from pgqueue.quotas
    where quotas.tenant in (enqueue_v1.tenant, '*')
    order by quotas.tenant = '*'
    limit 1;
    -- Approximate on purpose: it counts at most one row more than it allows and locks nothing.
    if waiting_limit is not null and (
      select count(*)
      from (
        select
        from pgqueue.jobs
        where jobs.tenant = enqueue_v1.tenant
          and jobs.state <> 'running'
        limit waiting_limit
      ) as waiting
    ) >= waiting_limit then
      raise exception 'the quota of tenant % is reached: % jobs may wait, and as many or more do',
        quote_literal(enqueue_v1.tenant), waiting_limit
        using errcode = 'PQ001', detail = waiting_limit::text;
    end if;
  end if;

  select max_queued
  into queue_limit
  from pgqueue.queues
  where queues.name = enqueue_v1.queue;
  if queue_limit is not null and pgqueue.backlog(enqueue_v1.queue, queue_limit) >= queue_limit then
    raise exception 'queue % is full: % jobs may wait in it, and as many or more do',
      quote_literal(enqueue_v1.queue), queue_limit
        using errcode = 'PQ001', detail = queue_limit::text;
  end if;
  job_limits := case
    when enqueue_v1.limits is null then pgqueue.limits_of(
      enqueue_v1.task, enqueue_v1.queue, enqueue_v1.tenant, enqueue_v1.payload
    )
    else pgqueue.render_limits(
      enqueue_v1.limits, enqueue_v1.task, enqueue_v1.queue, enqueue_v1.tenant, enqueue_v1.payload
    )
  end;

  new_id := nextval(pg_get_serial_sequence('pgqueue.jobs', 'id'));
  if enqueue_v1.unique_key is null then
    insert into pgqueue.jobs (
      id, task, queue, payload, priority, run_at, scheduled_at, tenant, tags, max_attempts,
      timeout, expires_at, headers, limits, state, blocked_on, order_name
    )
    values (
      new_id, enqueue_v1.task, enqueue_v1.queue, enqueue_v1.payload, enqueue_v1.priority,
      greatest(due, pgqueue.clock_now()), due, enqueue_v1.tenant, enqueue_v1.tags,
      enqueue_v1.max_attempts, enqueue_v1.timeout, enqueue_v1.expires_at, enqueue_v1.headers,
      job_limits, pgqueue.ready_state(job_limits), pgqueue.ready_on(job_limits),
      pgqueue.ready_order(job_limits)
    );
    return query select new_id, true;
    return;
  end if;

  perform set_config(
    'lock_timeout',
    (extract(epoch from enqueue_v1.unique_wait) * 1000)::bigint::text,
    true
  );
  loop
    holder_id := null;
    holder_state := null;
    if enqueue_v1.unique_for is not null then
      insert into pgqueue.unique_keys as held (key, job_id, until)
      values (enqueue_v1.unique_key, new_id, pgqueue.clock_now() + enqueue_v1.unique_for)
      on conflict (key) do update
      set job_id = excluded.job_id, until = excluded.until
      where held.until <= pgqueue.clock_now();
      if not found then
        -- A statement of its own: it sees what the one waited for above has committed.
        select held.job_id
        into holder_id
        from pgqueue.unique_keys as held
        where held.key = enqueue_v1.unique_key;
        continue when holder_id is null;
      end if;
    end if;

    if holder_id is null then
      insert into pgqueue.jobs (
        id, task, queue, payload, priority, run_at, scheduled_at, tenant, tags, unique_key,
        max_attempts, timeout, expires_at, headers, limits, state, blocked_on, order_name
      )
      values (
        new_id, enqueue_v1.task, enqueue_v1.queue, enqueue_v1.payload, enqueue_v1.priority,
        greatest(due, pgqueue.clock_now()), due, enqueue_v1.tenant, enqueue_v1.tags,
        enqueue_v1.unique_key, enqueue_v1.max_attempts, enqueue_v1.timeout,
        enqueue_v1.expires_at, enqueue_v1.headers, job_limits, pgqueue.ready_state(job_limits),
        pgqueue.ready_on(job_limits), pgqueue.ready_order(job_limits)
      )
      on conflict (unique_key) where unique_key is not null do nothing;
      if found then
        return query select new_id, true;
        exit;
      end if;
      select live.id
      into holder_id
      from pgqueue.jobs as live
      where live.unique_key = enqueue_v1.unique_key;
      -- Ended between the two statements: the key is free again.
      continue when holder_id is null;
      update pgqueue.unique_keys as held
      set job_id = holder_id
      where held.key = enqueue_v1.unique_key
        and enqueue_v1.unique_for is not null;
    end if;

    select live.state
    into holder_state
    from pgqueue.jobs as live
    where live.id = holder_id;
    -- A lock only where the row is to change: it would be held until the caller's commit, and the
    -- worker that wants to write the holder's end would wait for it with its whole batch.
    if holder_state is not null and enqueue_v1.unique_mode = 'replace' then
      select live.state
      into holder_state
      from pgqueue.jobs as live
      where live.id = holder_id
      for update;
      holder_state := case when found then holder_state end;
    end if;
    continue when holder_state is null and enqueue_v1.unique_for is null;
    if enqueue_v1.unique_mode = 'raise' then
      raise exception 'unique key % is taken by job %', quote_literal(enqueue_v1.unique_key),
        holder_id using errcode = 'PQ002', detail = holder_id::text;
    end if;
    if enqueue_v1.unique_mode = 'replace' and holder_state = 'running'
      and enqueue_v1.unique_for is null
    then
      -- Dropping the newer event would lose it: the running job gives up the key instead.
      update pgqueue.jobs as live
      set unique_key = null
      where live.id = holder_id;
      continue;
    end if;
    if enqueue_v1.unique_mode = 'replace' and holder_state <> 'running' then
      update pgqueue.jobs as live
      set
        payload = enqueue_v1.payload,
        run_at = case
          when enqueue_v1.run_at is null and enqueue_v1.delay is null then live.run_at
          else greatest(due, pgqueue.clock_now())
        end,
        scheduled_at = case
          when enqueue_v1.run_at is null and enqueue_v1.delay is null then live.scheduled_at
          else due
        end,
        -- An admission was for the job as it had been.
        limits = job_limits,
        state = case
          when live.state = 'waiting' then live.state
          else pgqueue.ready_state(job_limits)
        end,
        blocked_on = case when live.state <> 'waiting' then pgqueue.ready_on(job_limits) end,
        order_name = case when live.state <> 'waiting' then pgqueue.ready_order(job_limits) end,
        admitted_seq = null
      where live.id = holder_id;
    end if;
    return query select holder_id, false;
    exit;
  end loop;
  perform set_config('lock_timeout', previous_wait, true);
exception
  when lock_not_available then
    raise exception 'unique key % is held by an open transaction', quote_literal(enqueue_v1.unique_key)
      using errcode = 'PQ003', hint = 'try again, or put keyed enqueues last in a transaction';
end
$body$;
