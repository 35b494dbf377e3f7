CREATE SCHEMA content;

CREATE SCHEMA pgqueue;

CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;

COMMENT ON EXTENSION vector IS 'vector data type and ivfflat and hnsw access methods';

CREATE FUNCTION content.floats(vec bytea) RETURNS real[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
  select coalesce(
    array_agg(
      case
        when bits & 2147483647 = 0 then 0
        else (1 - 2 * (bits >> 31)) * (1 + (bits & 8388607) / 8388608.0::float8)
          * 2::float8 ^ (((bits >> 23) & 255) - 127)
      end
      order by n
    )::real[],
    '{}'
  )
  from (
    select
      n,
      get_byte(data, 4 * n)::bigint
        | (get_byte(data, 4 * n + 1)::bigint << 8)
        | (get_byte(data, 4 * n + 2)::bigint << 16)
        | (get_byte(data, 4 * n + 3)::bigint << 24) as bits
    from (select vec || ''::bytea as data offset 0) as unpacked,
      generate_series(0, octet_length(data) / 4 - 1) as n
    offset 0
  ) as words
$$;

CREATE FUNCTION content.use_pgvector() RETURNS boolean
    LANGUAGE plpgsql
    AS $$
declare
  home text;
  kind record;
begin
  -- Whoever inserts vectors asks afterwards whether there is a copy to be kept: here they wait.
  lock table "content".embeddings in share row exclusive mode;
  if exists (
    select
    from pg_attribute
    where attrelid = to_regclass('"content".item_vectors') and attname = 'vec' and not attisdropped
  ) then
    return true;
  end if;
  if not exists (select from pg_available_extensions where name = 'vector') then
    return false;
  end if;
  if not exists (select from pg_extension where extname = 'vector') then
    begin
      create extension vector with schema public;
    exception when others then
      -- Hosts refuse an extension with codes of their own.
      raise warning using message = 'pgqueue goes on without pgvector: ' || sqlerrm;
    end;
  end if;
  -- Before 0.8 an indexed search ends before it has found enough of one topic.
  select quote_ident(nspname) || '.' into home
  from pg_extension
  join pg_namespace on pg_namespace.oid = extnamespace
  where extname = 'vector'
    and string_to_array(substring(extversion from '^[0-9]+[.][0-9]+'), '.')::integer[] >= '{0,8}';
  if home is null then
    return false;
  end if;
  -- What is left when the extension was dropped has lost its vectors.
  if to_regclass('"content".item_vectors') is not null then
    drop table "content".item_vectors;
  end if;
  execute 'create table "content".item_vectors (
    item_id bigint not null,
    model text not null,
    topic_id bigint not null,
    org_id bigint not null,
    user_id bigint not null,
    vec ' || home || 'halfvec not null,
    constraint item_vectors_pkey primary key (item_id, model),
    constraint item_vectors_org_fkey foreign key (org_id) references "content".organizations (id),
    constraint item_vectors_user_fkey foreign key (user_id) references "content".users (id),
    constraint item_vectors_topic_fkey foreign key (topic_id)
      references "content".topics (id) on delete cascade,
    constraint item_vectors_embedding_fkey foreign key (item_id, model)
      references "content".embeddings (item_id, model) on delete cascade
  )';
  -- An administrator may have called this: the workers write as whoever migrated.
  execute 'alter table "content".item_vectors owner to ' || relowner::regrole
  from pg_class
  where oid = to_regclass('"content".embeddings');
  insert into "content".item_vectors (item_id, model, topic_id, org_id, user_id, vec)
  select
    embeddings.item_id, embeddings.model, items.topic_id, embeddings.org_id, embeddings.user_id,
    "content".floats(embeddings.vec)
  from "content".embeddings
  join "content".items on items.id = embeddings.item_id;
  -- For a topic that is a small part of all.
  create index item_vectors_topic on "content".item_vectors (topic_id, model);
  for kind in
    select *
    from (values ('hash-2048', 2048), ('hash-512', 512), ('wordllama-256', 256)) as kinds (model, dim)
  loop
    execute 'create index ' || quote_ident('item_vectors_' || replace(kind.model, '-', '_'))
      || ' on "content".item_vectors using hnsw ((vec::' || home || 'halfvec(' || kind.dim || ')) '
      || home || 'halfvec_cosine_ops) where model = ' || quote_literal(kind.model);
  end loop;
  return true;
end
$$;

CREATE FUNCTION pgqueue.admit(named text[], lowest bigint, after text, alive double precision, most integer DEFAULT 500) RETURNS TABLE(ran boolean, admitted integer, queues text[], lowest_live bigint, reached text, wait double precision, moving boolean, unclaimed boolean, unseen text[])
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  seen_at constant timestamptz := "pgqueue".clock();
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
    hashtextextended('"pgqueue".jobs'::regclass::oid::text || ' admission', 0)
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
  if lowest > (select last_value + 1 from "pgqueue".admitted_seq) then
    lowest := 0;
  end if;

  -- Nobody wants them: the slots are for others.
  update "pgqueue".jobs
  set
    state = 'blocked',
    blocked_on = '@new',
    admitted_seq = null,
    run_at = "pgqueue".clock_now()
  where ctid = any(array(
    select ctid
    from "pgqueue".jobs
    where admitted_seq >= lowest
      -- Not `state = 'queued'`: with the index of those all queued jobs would be read.
      and lease is null
      and run_at < "pgqueue".clock() - interval '30 seconds'
    limit most
    for update skip locked
  ));

  -- Their queue was resumed, or a worker that serves them has come.
  for place in
    with recursive places as (
      (
        select blocked_on collate "C" as name
        from "pgqueue".jobs
        where blocked_on collate "C" >= '@'
        order by blocked_on collate "C"
        limit 1
      )
      union all
      select following.name
      from places
      cross join lateral (
        select blocked_on collate "C" as name
        from "pgqueue".jobs
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
      select from "pgqueue".queues where name = substr(place, 8) and paused
    );
    continue when starts_with(place, '@worker:') and not exists (
      select
      from "pgqueue".workers
      where heartbeat_at > seen_at - alive * interval '1 second'
        and (workers.queues = '{}' or split_part(substr(place, 9), '/', 1) = any(workers.queues))
        and split_part(substr(place, 9), '/', 2) = any(tasks)
    );
    update "pgqueue".jobs
    set blocked_on = '@new'
    where ctid = any(array(
      select ctid
      from "pgqueue".jobs
      where blocked_on collate "C" = place
      limit most
      for update skip locked
    ));
  end loop;

  -- Jobs of queues that have a limit, which came by the way of jobs without.
  limited_queues := array(select name from "pgqueue".queues where limited);
  foreach one in array limited_queues loop
    update "pgqueue".jobs
    set
      state = 'blocked',
      blocked_on = '@new',
      limits = array['queue:' || one]
    where ctid = any(array(
      select found.tid
      from generate_series(9, 0, -1) as lanes (priority)
      cross join lateral (
        select ctid as tid
        from "pgqueue".jobs
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

  update "pgqueue".jobs
  set blocked_on = '@new'
  where ctid = any(array(
    select ctid
    from "pgqueue".jobs
    where blocked_on = '@run_at'
      and run_at <= "pgqueue".clock()
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
    from "pgqueue".jobs
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
    (select min(admitted_seq) from "pgqueue".jobs where admitted_seq >= lowest),
    (select last_value + is_called::integer from "pgqueue".admitted_seq)
  );

  unclaimed := exists (select from jsonb_each_text(unstarted) where value <> '0');

  -- Newcomers go to the line of the first of their limits that is full, and of several tenants each
  -- as many as the others.
  with recursive tenants as (
    (
      select coalesce(tenant, '') as tenant, 1 as nth
      from "pgqueue".jobs
      where blocked_on collate "C" = '@new'
      order by coalesce(tenant, '')
      limit 1
    )
    union all
    select following.tenant, tenants.nth + 1
    from tenants
    cross join lateral (
      select coalesce(tenant, '') as tenant
      from "pgqueue".jobs
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
      from "pgqueue".jobs
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
      from "pgqueue".jobs
      cross join unnest(limits) as names (name)
      where id = any(arrivals)
        and cardinality(limits) > 1
        and not starts_with(limits[1], 'ordered:')
    loop
      select room, limit_room.wait
      into looked
      from "pgqueue".limit_room(
        one, coalesce((slots ->> one)::bigint, 0), coalesce((unstarted ->> one)::bigint, 0)
      );
      rooms := rooms || jsonb_build_object(one, looked.room);
      wait := least(wait, looked.wait);
    end loop;
    with parked as (
      update "pgqueue".jobs
      set
        order_name = "pgqueue".ready_order(limits),
        blocked_on = case
          -- It came back marked. Whoever ends what is over ends it: it waits for no slot.
          when cancel_requested_at is not null then '@cancel'
          when run_at > "pgqueue".clock() then '@run_at'
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
        from "pgqueue".jobs
        where blocked_on collate "C" > after
        order by blocked_on collate "C"
        limit 1
      )
      union all
      select following.name, places.nth + 1
      from places
      cross join lateral (
        select blocked_on collate "C" as name
        from "pgqueue".jobs
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
        from "pgqueue".jobs
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
      from "pgqueue".limit_room(
        line, coalesce((slots ->> line)::bigint, 0), coalesce((unstarted ->> line)::bigint, 0)
      );
      rooms := rooms || jsonb_build_object(line, looked.room);
      wait := least(wait, looked.wait);
    end if;
    continue when (rooms ->> line)::bigint <= 0;
    if starts_with(line, 'ordered:') then
      -- Its job that failed for good holds it, until that one is retried or deleted.
      delete from "pgqueue".order_holds
      where ctid = any(array(
        select ctid
        from "pgqueue".order_holds
        where name = line
          and (
            exists (select from "pgqueue".jobs where jobs.id = order_holds.job_id)
            or not exists (
              select
              from "pgqueue".finished_jobs
              where finished_jobs.id = order_holds.job_id
                and finished_jobs.finished_at = order_holds.finished_at
                and finished_jobs.state = 'failed'
            )
          )
        -- Whoever ends that job just now holds it anew, and may stand still over that.
        for update skip locked
      ));
      continue when exists (select from "pgqueue".order_holds where name = line);
    else
      select limit_turns.tenant into turn from "pgqueue".limit_turns where name = line;
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
        from "pgqueue".jobs
        where order_name = line
        order by scheduled_at, id
        limit 1;
        exit when candidate.blocked_on is distinct from line;
        select id, queue, task, limits, run_at, scheduled_at
        into candidate
        from "pgqueue".jobs
        where id = candidate.id
          and blocked_on = line
        for update skip locked;
        exit when not found;
      else
        if stays = 0 and not is_again then
          if is_first then
            select coalesce(tenant, '')
            into turn
            from "pgqueue".jobs
            where blocked_on collate "C" = line
            order by coalesce(tenant, '')
            limit 1;
          else
            select coalesce(tenant, '') as tenant
            into looked
            from "pgqueue".jobs
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
          from "pgqueue".jobs
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
          from "pgqueue".jobs
          where blocked_on = line
            and id = (
              select heads.id
              from (
                select id, limits
                from "pgqueue".jobs
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
            from "pgqueue".jobs
            where blocked_on collate "C" = line
              and coalesce(tenant, '') = turn
            order by coalesce(tenant, '') desc, priority, run_at desc, id desc
            limit 1
          ) as tail
          where not tail.limits && full_ones
        ) then
          -- Who stands at the end waits for nothing else, and is kept out by those before him: they go
          -- where they wait. Where all wait for the other limit, they would only go to and fro.
          update "pgqueue".jobs
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
              from "pgqueue".jobs
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
      if exists (select from "pgqueue".queues where name = candidate.queue and limited)
        and 'queue:' || candidate.queue <> all(candidate.limits)
      then
        candidate.limits := candidate.limits || ('queue:' || candidate.queue);
      end if;
      place := null;
      if candidate.run_at > seen_at then
        place := '@run_at';
      elsif candidate.queue || '/' || candidate.task <> all(served) then
        if exists (select from "pgqueue".queues where name = candidate.queue and paused) then
          place := '@queue:' || candidate.queue;
        elsif not exists (
          select
          from "pgqueue".workers
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
            from "pgqueue".limit_room(
              one, coalesce((slots ->> one)::bigint, 0), coalesce((unstarted ->> one)::bigint, 0)
            );
            rooms := rooms || jsonb_build_object(one, looked.room);
            wait := least(wait, looked.wait);
          end if;
          if (rooms ->> one)::bigint <= 0
            or starts_with(one, 'ordered:') and (
              exists (
                select
                from "pgqueue".jobs
                where jobs.order_name = one
                  and (jobs.scheduled_at, jobs.id) < (candidate.scheduled_at, candidate.id)
              )
              -- One that came back while this one stood in another line, and failed again.
              or starts_with(line, 'ordered:') is false
              and exists (select from "pgqueue".order_holds where name = one)
            )
          then
            place := one;
            full_ones := full_ones || one;
            exit;
          end if;
        end loop;
      end if;

      if place is not null then
        update "pgqueue".jobs
        set blocked_on = place, limits = candidate.limits
        where id = candidate.id;
        -- The same tenant's next one: those that wait for no limit are taken out of the line.
        is_again := starts_with(place, '@');
        stays := case when is_again or stays = 20 then 0 else stays + 1 end;
        continue;
      end if;
      update "pgqueue".jobs
      set
        state = 'queued',
        blocked_on = null,
        limits = candidate.limits,
        admitted_seq = nextval('"pgqueue".admitted_seq'),
        run_at = greatest(run_at, "pgqueue".clock_now())
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
        from "pgqueue".jobs
        where blocked_on collate "C" = line
          and coalesce(tenant, '') > last_turn
      )
      or exists (
        select
        from "pgqueue".jobs
        where blocked_on collate "C" = line
          and coalesce(tenant, '') < last_turn
      )
    ) then
      insert into "pgqueue".limit_turns (name, tenant)
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
    or exists (select from "pgqueue".jobs where blocked_on collate "C" = '@new')
  then
    wait := 0;
  end if;
  wait := least(
    wait,
    extract(epoch from (
      select min(run_at) from "pgqueue".jobs where blocked_on = '@run_at'
    ) - "pgqueue".clock_now()),
    case
      when exists (select from "pgqueue".jobs where blocked_on collate "C" < '@run_at')
        or exists (select from "pgqueue".jobs where blocked_on collate "C" > '@run_at')
        then 1
    end
  );
  -- Of nulls greatest() would make 0.
  if wait < 0 then
    wait := 0;
  end if;
  return next;
end
$$;

CREATE FUNCTION pgqueue.backlog(queue text, most integer) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
  select (
    select count(*)
    from (
      select
      from "pgqueue".jobs
      where jobs.queue = backlog.queue
        and jobs.state = 'queued'
      limit backlog.most
    ) as queued
  ) + (
    select count(*)
    from (
      -- Of all blocked ones, not more than so many are looked at.
      select jobs.queue
      from "pgqueue".jobs
      where jobs.blocked_on is not null
      limit backlog.most + 20000
    ) as blocked
    where blocked.queue = backlog.queue
  )
$$;

CREATE FUNCTION pgqueue.clock() RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$select statement_timestamp()$$;

CREATE FUNCTION pgqueue.clock_now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$select clock_timestamp()$$;

CREATE FUNCTION pgqueue.deliver_events(most integer DEFAULT 500, OUT woken bigint, OUT delivered bigint, OUT has_more boolean, OUT has_waiters boolean) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  came record;
  waits record;
  live record;
  is_left boolean;
begin
  woken := 0;
  delivered := 0;
  has_more := false;
  for came in
    select id, name, key, payload, created_at
    from "pgqueue".events
    where delivered_at is null
    order by created_at, id
    limit 500
    for update skip locked
  loop
    is_left := false;
    for waits in
      select job_steps.job_id, job_steps.name
      from "pgqueue".job_steps
      where job_steps.kind = 'wait'
        and job_steps.finished_at is null
        and job_steps.event = came.name
        and job_steps.event_key = came.key
    loop
      if woken >= deliver_events.most then
        is_left := true;
        exit;
      end if;
      select jobs.created_at
      into live
      from "pgqueue".jobs
      where jobs.id = waits.job_id
      for update skip locked;
      if not found then
        -- Held by somebody, or over.
        is_left := is_left or exists (select from "pgqueue".jobs where jobs.id = waits.job_id);
        continue;
      end if;
      continue when live.created_at > came.created_at;
      -- One of its other waits got it.
      continue when exists (
        select
        from "pgqueue".job_steps
        where job_steps.job_id = waits.job_id
          and job_steps.event_id = came.id
      );
      update "pgqueue".job_steps
      set finished_at = "pgqueue".clock_now(), event_id = came.id, result = came.payload
      where job_steps.job_id = waits.job_id
        and job_steps.kind = 'wait'
        and job_steps.name = waits.name
        and job_steps.finished_at is null;
      continue when not found;
      -- One with limits stays blocked, and is admitted when it is due.
      update "pgqueue".jobs
      set run_at = "pgqueue".clock_now()
      where jobs.id = waits.job_id
        and jobs.state in ('queued', 'blocked')
        and jobs.run_at > "pgqueue".clock_now();
      woken := woken + 1;
    end loop;
    if is_left then
      has_more := true;
    else
      update "pgqueue".events
      set delivered_at = "pgqueue".clock_now()
      where events.id = came.id;
      delivered := delivered + 1;
    end if;
    exit when woken >= deliver_events.most;
  end loop;
  has_more := has_more or exists (
    select
    from "pgqueue".events
    where delivered_at is null
  );
  has_waiters := exists (
    select
    from "pgqueue".job_steps
    where kind = 'wait'
      and finished_at is null
  );
end
$$;

CREATE FUNCTION pgqueue.emit(name text, key text, payload jsonb DEFAULT 'null'::jsonb, notify boolean DEFAULT true) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
#variable_conflict use_column
declare
  new_id bigint;
begin
  if emit.name is null or emit.name ~ '[^A-Za-z0-9_.:-]' or length(emit.name) not between 1 and 200
  then
    raise exception 'event name % is not valid: 1 to 200 letters, digits and the signs _ . : -',
      coalesce(quote_literal(emit.name), 'null') using errcode = '22023';
  end if;
  if emit.key is null or octet_length(emit.key) not between 1 and 1000 then
    raise exception 'event key is not valid: 1 to 1000 bytes' using errcode = '22023';
  end if;
  if octet_length(emit.payload::text) > 1000000 then
    raise exception 'payload has % bytes, and 1000000 is the most',
      octet_length(emit.payload::text) using errcode = '22023';
  end if;
  insert into "pgqueue".events (name, key, payload)
  values (emit.name, emit.key, coalesce(emit.payload, 'null'))
  returning id into new_id;
  if emit.notify then
    -- The channel is named like the schema.
    perform pg_notify(
      (
        select pg_namespace.nspname
        from pg_class
        join pg_namespace on pg_namespace.oid = pg_class.relnamespace
        where pg_class.oid = '"pgqueue".events'::regclass
      ),
      '!events'
    );
  end if;
  return new_id;
end
$$;

CREATE FUNCTION pgqueue.enqueue(task text, payload jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 5, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, tenant text DEFAULT NULL::text, tags text[] DEFAULT '{}'::text[], unique_key text DEFAULT NULL::text, unique_mode text DEFAULT 'skip'::text, unique_for interval DEFAULT NULL::interval, max_attempts integer DEFAULT 1, timeout double precision DEFAULT NULL::double precision, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, headers jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE sql
    AS $$
    select job_id
    from "pgqueue".enqueue_v1(
      task, payload, queue, priority, run_at, delay, tenant, tags, unique_key, unique_mode,
      unique_for, max_attempts, timeout, expires_at, headers
    )
    cross join pg_notify(
      (select relnamespace::regnamespace::name from pg_class where oid = '"pgqueue".jobs'::regclass),
      queue
    )
$$;

CREATE FUNCTION pgqueue.enqueue_v1(task text, payload jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 5, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, tenant text DEFAULT NULL::text, tags text[] DEFAULT '{}'::text[], unique_key text DEFAULT NULL::text, unique_mode text DEFAULT 'skip'::text, unique_for interval DEFAULT NULL::interval, max_attempts integer DEFAULT 1, timeout double precision DEFAULT NULL::double precision, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, headers jsonb DEFAULT '{}'::jsonb, unique_wait interval DEFAULT '00:00:05'::interval, limits text[] DEFAULT NULL::text[]) RETURNS TABLE(job_id bigint, is_new boolean)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
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
    "pgqueue".clock_now() + coalesce(enqueue_v1.delay, interval '0')
  );

  if enqueue_v1.tenant is not null then
    select max_waiting
    into waiting_limit
    from "pgqueue".quotas
    where quotas.tenant in (enqueue_v1.tenant, '*')
    order by quotas.tenant = '*'
    limit 1;
    -- Approximate on purpose: it counts at most one row more than it allows and locks nothing.
    if waiting_limit is not null and (
      select count(*)
      from (
        select
        from "pgqueue".jobs
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
  from "pgqueue".queues
  where queues.name = enqueue_v1.queue;
  if queue_limit is not null and "pgqueue".backlog(enqueue_v1.queue, queue_limit) >= queue_limit then
    raise exception 'queue % is full: % jobs may wait in it, and as many or more do',
      quote_literal(enqueue_v1.queue), queue_limit
        using errcode = 'PQ001', detail = queue_limit::text;
  end if;
  job_limits := case
    when enqueue_v1.limits is null then "pgqueue".limits_of(
      enqueue_v1.task, enqueue_v1.queue, enqueue_v1.tenant, enqueue_v1.payload
    )
    else "pgqueue".render_limits(
      enqueue_v1.limits, enqueue_v1.task, enqueue_v1.queue, enqueue_v1.tenant, enqueue_v1.payload
    )
  end;

  new_id := nextval(pg_get_serial_sequence('"pgqueue".jobs', 'id'));
  if enqueue_v1.unique_key is null then
    insert into "pgqueue".jobs (
      id, task, queue, payload, priority, run_at, scheduled_at, tenant, tags, max_attempts,
      timeout, expires_at, headers, limits, state, blocked_on, order_name
    )
    values (
      new_id, enqueue_v1.task, enqueue_v1.queue, enqueue_v1.payload, enqueue_v1.priority,
      greatest(due, "pgqueue".clock_now()), due, enqueue_v1.tenant, enqueue_v1.tags,
      enqueue_v1.max_attempts, enqueue_v1.timeout, enqueue_v1.expires_at, enqueue_v1.headers,
      job_limits, "pgqueue".ready_state(job_limits), "pgqueue".ready_on(job_limits),
      "pgqueue".ready_order(job_limits)
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
      insert into "pgqueue".unique_keys as held (key, job_id, until)
      values (enqueue_v1.unique_key, new_id, "pgqueue".clock_now() + enqueue_v1.unique_for)
      on conflict (key) do update
      set job_id = excluded.job_id, until = excluded.until
      where held.until <= "pgqueue".clock_now();
      if not found then
        -- A statement of its own: it sees what the one waited for above has committed.
        select held.job_id
        into holder_id
        from "pgqueue".unique_keys as held
        where held.key = enqueue_v1.unique_key;
        continue when holder_id is null;
      end if;
    end if;

    if holder_id is null then
      insert into "pgqueue".jobs (
        id, task, queue, payload, priority, run_at, scheduled_at, tenant, tags, unique_key,
        max_attempts, timeout, expires_at, headers, limits, state, blocked_on, order_name
      )
      values (
        new_id, enqueue_v1.task, enqueue_v1.queue, enqueue_v1.payload, enqueue_v1.priority,
        greatest(due, "pgqueue".clock_now()), due, enqueue_v1.tenant, enqueue_v1.tags,
        enqueue_v1.unique_key, enqueue_v1.max_attempts, enqueue_v1.timeout,
        enqueue_v1.expires_at, enqueue_v1.headers, job_limits, "pgqueue".ready_state(job_limits),
        "pgqueue".ready_on(job_limits), "pgqueue".ready_order(job_limits)
      )
      on conflict (unique_key) where unique_key is not null do nothing;
      if found then
        return query select new_id, true;
        exit;
      end if;
      select live.id
      into holder_id
      from "pgqueue".jobs as live
      where live.unique_key = enqueue_v1.unique_key;
      -- Ended between the two statements: the key is free again.
      continue when holder_id is null;
      update "pgqueue".unique_keys as held
      set job_id = holder_id
      where held.key = enqueue_v1.unique_key
        and enqueue_v1.unique_for is not null;
    end if;

    select live.state
    into holder_state
    from "pgqueue".jobs as live
    where live.id = holder_id;
    -- A lock only where the row is to change: it would be held until the caller's commit, and the
    -- worker that wants to write the holder's end would wait for it with its whole batch.
    if holder_state is not null and enqueue_v1.unique_mode = 'replace' then
      select live.state
      into holder_state
      from "pgqueue".jobs as live
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
      update "pgqueue".jobs as live
      set unique_key = null
      where live.id = holder_id;
      continue;
    end if;
    if enqueue_v1.unique_mode = 'replace' and holder_state <> 'running' then
      update "pgqueue".jobs as live
      set
        payload = enqueue_v1.payload,
        run_at = case
          when enqueue_v1.run_at is null and enqueue_v1.delay is null then live.run_at
          else greatest(due, "pgqueue".clock_now())
        end,
        scheduled_at = case
          when enqueue_v1.run_at is null and enqueue_v1.delay is null then live.scheduled_at
          else due
        end,
        -- An admission was for the job as it had been.
        limits = job_limits,
        state = case
          when live.state = 'waiting' then live.state
          else "pgqueue".ready_state(job_limits)
        end,
        blocked_on = case when live.state <> 'waiting' then "pgqueue".ready_on(job_limits) end,
        order_name = case when live.state <> 'waiting' then "pgqueue".ready_order(job_limits) end,
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
$$;

CREATE FUNCTION pgqueue.is_span_completed(schedule bigint, span_start timestamp with time zone, span_end timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  select exists (
    select
    from "pgqueue".windows
    where windows.schedule_id = schedule
      and windows.window_start = span_start
      and windows.window_end = span_end
      and coalesce(
        windows.outcome, "pgqueue".window_outcome(windows.job_id, windows.created_at)
      ) = 'completed'
  )
$$;

CREATE FUNCTION pgqueue.is_span_covered(schedule bigint, span_start timestamp with time zone, span_end timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  select coalesce(
    (
      select windows.window_end > span_start
      from "pgqueue".windows
      where windows.schedule_id = schedule
        and windows.window_start < span_end
        and windows.mode in ('window', 'backfill')
      order by windows.window_start desc
      limit 1
    ),
    false
  )
$$;

CREATE FUNCTION pgqueue.limit_room(limit_name text, used bigint, unstarted bigint) RETURNS TABLE(room bigint, wait double precision)
    LANGUAGE sql STABLE
    AS $$
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
  from "pgqueue".limit_rule(limit_name) as rule
  cross join lateral (
    select
      count(*) as starts,
      extract(epoch from min(at) - "pgqueue".clock()) + rule.per as wait
    from (
      select at
      from "pgqueue".limit_starts
      where limit_starts.name = limit_name
        and limit_starts.at > "pgqueue".clock() - rule.per * interval '1 second'
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
          from "pgqueue".jobs
          where jobs.state = 'running'
            and jobs.admitted_seq is null
            and jobs.queue = substr(limit_name, 7)
        )
      end as jobs
  ) as uncounted
$$;

CREATE FUNCTION pgqueue.limit_rule(limit_name text) RETURNS TABLE(running integer, starts integer, per double precision, on_failure text, until timestamp with time zone, since timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
  with
    of_code as (
      select name, running, starts, per, on_failure, set_at
      from "pgqueue".limits
      where declared
        and (name = limit_name or limit_name like pattern)
      order by name <> limit_name, strpos(name, '{') desc, length(pattern) desc, name
      limit 1
    ),
    of_operators as (
      select
        name, running, starts, per, until,
        until is null or until > "pgqueue".clock() as holds,
        case when until <= "pgqueue".clock() then until else set_at end as changed_at
      from "pgqueue".limits
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

CREATE FUNCTION pgqueue.limits_of(task text, queue text, tenant text, payload jsonb) RETURNS text[]
    LANGUAGE sql STABLE
    AS $$
  select coalesce(
    (
      select "pgqueue".render_limits(
        task_limits.names, limits_of.task, limits_of.queue, limits_of.tenant, limits_of.payload
      )
      from "pgqueue".task_limits
      where task_limits.task = limits_of.task
    ),
    '{}'
  )
$$;

CREATE FUNCTION pgqueue.make_partitions(days_ahead integer DEFAULT 14) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
  today date := ("pgqueue".clock_now() at time zone 'UTC')::date;
  state_group text;
  day date;
  partition_name text;
  made integer := 0;
begin
  perform set_config('lock_timeout', '100ms', true);
  perform pg_advisory_xact_lock(hashtextextended('"pgqueue".finished_jobs'::regclass::oid::text, 0));
  foreach state_group in array array['completed', 'failed'] loop
    for day in select generate_series(today - 1, today + days_ahead, interval '1 day')::date loop
      -- No format() here: a percent sign does not survive `pgq migrate --sql`.
      partition_name := 'finished_jobs_' || state_group || '_' || to_char(day, 'YYYYMMDD');
      continue when to_regclass('"pgqueue".' || quote_ident(partition_name)) is not null;
      execute 'create table "pgqueue".' || quote_ident(partition_name)
        || ' (like "pgqueue".finished_jobs including all)';
      execute 'alter table "pgqueue".' || quote_ident('finished_jobs_' || state_group)
        || ' attach partition "pgqueue".' || quote_ident(partition_name)
        || ' for values from (' || quote_literal(day::timestamp at time zone 'UTC')
        || ') to (' || quote_literal((day + 1)::timestamp at time zone 'UTC') || ')';
      made := made + 1;
    end loop;
  end loop;
  return made;
end
$$;

CREATE FUNCTION pgqueue.ready_on(limits text[]) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$select case when limits = '{}' then null else '@new' end$$;

CREATE FUNCTION pgqueue.ready_order(limits text[]) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$select case when starts_with(limits[1], 'ordered:') then limits[1] end$$;

CREATE FUNCTION pgqueue.ready_state(limits text[]) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$select case when limits = '{}' then 'queued' else 'blocked' end$$;

CREATE FUNCTION pgqueue.render_limits(names text[], task text, queue text, tenant text, payload jsonb) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION pgqueue.tell_workflow() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
  insert into "pgqueue".workflow_news (workflow_id, job_id)
  values (old.workflow_id, old.id);
  return null;
end
$$;

CREATE FUNCTION pgqueue.window_key(schedule bigint, window_start timestamp with time zone, mode text) RETURNS text
    LANGUAGE sql STABLE
    AS $$
  select 'schedule:' || schedule || ':' || extract(epoch from window_start)::bigint || ':' || mode
$$;

CREATE FUNCTION pgqueue.window_outcome(job bigint, since timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE
    AS $$
  select case
    when not exists (select from "pgqueue".jobs where jobs.id = job) then coalesce(
      (
        select finished_jobs.state
        from "pgqueue".finished_jobs
        where finished_jobs.id = job
          and finished_jobs.finished_at >= since
        order by finished_jobs.finished_at desc
        limit 1
      ),
      'lost'
    )
  end
$$;

CREATE TABLE content.digests (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    topic_id bigint NOT NULL,
    window_id bigint NOT NULL,
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    mode text DEFAULT 'window'::text NOT NULL,
    title text NOT NULL,
    body jsonb NOT NULL,
    text text NOT NULL,
    html text NOT NULL,
    rev integer DEFAULT 1 NOT NULL,
    high_water_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    CONSTRAINT digests_mode CHECK ((mode = ANY (ARRAY['window'::text, 'catchup'::text, 'since-last-run'::text, 'backfill'::text]))),
    CONSTRAINT digests_rev CHECK ((rev >= 1)),
    CONSTRAINT digests_span CHECK ((window_start < window_end))
);

ALTER TABLE content.digests ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.digests_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE content.embeddings (
    item_id bigint NOT NULL,
    model text NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    dim integer NOT NULL,
    vec bytea NOT NULL,
    CONSTRAINT embeddings_length CHECK ((octet_length(vec) = (4 * dim)))
);

CREATE TABLE content.item_vectors (
    item_id bigint NOT NULL,
    model text NOT NULL,
    topic_id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    vec public.halfvec NOT NULL
);

CREATE TABLE content.items (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    topic_id bigint NOT NULL,
    source_id bigint,
    window_id bigint,
    late boolean DEFAULT false NOT NULL,
    url text,
    canonical_url text,
    guid text,
    title text NOT NULL,
    author text,
    published_at timestamp with time zone,
    first_seen_at timestamp with time zone NOT NULL,
    belongs_at timestamp with time zone NOT NULL,
    text text NOT NULL,
    lang text,
    content_hash text NOT NULL,
    dedupe_key text NOT NULL,
    duplicate_of bigint,
    CONSTRAINT items_belongs CHECK ((belongs_at <= first_seen_at)),
    CONSTRAINT items_duplicate CHECK ((duplicate_of <> id))
);

ALTER TABLE content.items ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.items_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE content.organizations (
    id bigint NOT NULL,
    name text NOT NULL,
    max_active_jobs integer DEFAULT 50 NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    CONSTRAINT organizations_max_active_jobs CHECK ((max_active_jobs > 0))
);

ALTER TABLE content.organizations ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.organizations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE content.sources (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    topic_id bigint NOT NULL,
    kind text DEFAULT 'rss'::text NOT NULL,
    name text DEFAULT ''::text NOT NULL,
    url text NOT NULL,
    canonical_url text NOT NULL,
    file_root text,
    enabled boolean DEFAULT true NOT NULL,
    etag text,
    last_modified text,
    moved_to text,
    moved_count integer DEFAULT 0 NOT NULL,
    next_poll_at timestamp with time zone,
    last_polled_at timestamp with time zone,
    failures integer DEFAULT 0 NOT NULL,
    health text DEFAULT 'new'::text NOT NULL,
    last_error text,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    CONSTRAINT sources_failures CHECK (((failures >= 0) AND (moved_count >= 0))),
    CONSTRAINT sources_file CHECK (((url ~* '^file:'::text) = (file_root IS NOT NULL))),
    CONSTRAINT sources_health CHECK ((health = ANY (ARRAY['new'::text, 'healthy'::text, 'failing'::text, 'unhealthy'::text, 'gone'::text]))),
    CONSTRAINT sources_kind CHECK ((kind = ANY (ARRAY['rss'::text, 'youtube'::text, 'website'::text, 'upload'::text])))
);

ALTER TABLE content.sources ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.sources_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE content.stories (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    topic_id bigint NOT NULL,
    title text NOT NULL,
    status text DEFAULT 'developing'::text NOT NULL,
    model text NOT NULL,
    centroid bytea NOT NULL,
    item_count integer NOT NULL,
    copy_count integer DEFAULT 0 NOT NULL,
    first_item_at timestamp with time zone NOT NULL,
    last_item_at timestamp with time zone NOT NULL,
    score double precision,
    merged_into bigint,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    CONSTRAINT stories_counts CHECK (((item_count >= 0) AND (copy_count >= 0))),
    CONSTRAINT stories_merged CHECK ((merged_into <> id)),
    CONSTRAINT stories_status CHECK ((status = ANY (ARRAY['developing'::text, 'stable'::text, 'closed'::text]))),
    CONSTRAINT stories_times CHECK ((first_item_at <= last_item_at))
);

ALTER TABLE content.stories ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.stories_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE content.story_items (
    story_id bigint NOT NULL,
    item_id bigint NOT NULL,
    topic_id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    similarity real NOT NULL
);

CREATE TABLE content.topics (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    name text NOT NULL,
    keywords text[] DEFAULT '{}'::text[] NOT NULL,
    window_times text[] DEFAULT '{06:00,14:00,22:00}'::text[] NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    embedder text DEFAULT 'auto'::text NOT NULL,
    revision bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    CONSTRAINT topics_name CHECK (((name <> ''::text) AND (length(name) <= 200))),
    CONSTRAINT topics_window_times CHECK ((cardinality(window_times) > 0))
);

ALTER TABLE content.topics ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.topics_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE content.users (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL
);

ALTER TABLE content.users ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE content.windows (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    user_id bigint NOT NULL,
    topic_id bigint NOT NULL,
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    mode text DEFAULT 'window'::text NOT NULL,
    items_since timestamp with time zone NOT NULL,
    stage text DEFAULT 'started'::text NOT NULL,
    model text,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    milliseconds jsonb DEFAULT '{}'::jsonb NOT NULL,
    error text,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    updated_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT content_windows_finished CHECK (((stage = 'digest'::text) = (finished_at IS NOT NULL))),
    CONSTRAINT content_windows_mode CHECK ((mode = ANY (ARRAY['window'::text, 'catchup'::text, 'since-last-run'::text, 'backfill'::text]))),
    CONSTRAINT content_windows_span CHECK (((window_start < window_end) AND (items_since <= window_end))),
    CONSTRAINT content_windows_stage CHECK ((stage = ANY (ARRAY['started'::text, 'ingest'::text, 'embed'::text, 'cluster'::text, 'digest'::text])))
);

ALTER TABLE content.windows ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME content.windows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE SEQUENCE pgqueue.admitted_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE pgqueue.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE pgqueue.finished_jobs (
    id bigint NOT NULL,
    task text NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    state text NOT NULL,
    payload jsonb NOT NULL,
    tenant text,
    tags text[] NOT NULL,
    unique_key text,
    limits text[] NOT NULL,
    run_at timestamp with time zone NOT NULL,
    scheduled_at timestamp with time zone NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    lease bigint,
    worker_id bigint,
    started_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    timeout double precision,
    errors jsonb NOT NULL,
    progress jsonb,
    headers jsonb NOT NULL,
    workflow_id bigint,
    cancel_requested_at timestamp with time zone,
    finished_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    result jsonb,
    expires_at timestamp with time zone,
    crashes integer DEFAULT 0 NOT NULL,
    suspect boolean DEFAULT false NOT NULL,
    CONSTRAINT finished_jobs_final_state CHECK ((state = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
)
PARTITION BY LIST (state);

CREATE TABLE pgqueue.jobs (
    id bigint NOT NULL,
    task text NOT NULL,
    queue text NOT NULL,
    priority smallint DEFAULT 5 NOT NULL,
    state text DEFAULT 'queued'::text NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    tenant text,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    unique_key text,
    limits text[] DEFAULT '{}'::text[] NOT NULL,
    blocked_on text,
    run_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    scheduled_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 1 NOT NULL,
    lease bigint,
    worker_id bigint,
    started_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    timeout double precision,
    errors jsonb DEFAULT '[]'::jsonb NOT NULL,
    progress jsonb,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    workflow_id bigint,
    cancel_requested_at timestamp with time zone,
    expires_at timestamp with time zone,
    crashes integer DEFAULT 0 NOT NULL,
    suspect boolean DEFAULT false NOT NULL,
    admitted_seq bigint,
    order_name text,
    CONSTRAINT jobs_attempt CHECK (((attempt >= 0) AND (max_attempts >= 1))),
    CONSTRAINT jobs_blocked_names_its_limit CHECK (((state = 'blocked'::text) = (blocked_on IS NOT NULL))),
    CONSTRAINT jobs_expires_at CHECK (((expires_at >= to_timestamp(('-62135510400'::bigint)::double precision)) AND (expires_at <= to_timestamp(('253402128000'::bigint)::double precision)))),
    CONSTRAINT jobs_live_state CHECK ((state = ANY (ARRAY['queued'::text, 'blocked'::text, 'waiting'::text, 'running'::text]))),
    CONSTRAINT jobs_payload CHECK ((jsonb_typeof(payload) = 'object'::text)),
    CONSTRAINT jobs_priority CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT jobs_queue CHECK (((queue !~ '[^A-Za-z0-9_.:-]'::text) AND ((length(queue) >= 1) AND (length(queue) <= 100)))),
    CONSTRAINT jobs_running_is_held CHECK ((((state = 'running'::text) = (lease IS NOT NULL)) AND ((state = 'running'::text) = (worker_id IS NOT NULL)) AND ((state <> 'running'::text) OR (started_at IS NOT NULL)))),
    CONSTRAINT jobs_task CHECK (((length(task) >= 1) AND (length(task) <= 200))),
    CONSTRAINT jobs_timeout CHECK (((timeout > (0)::double precision) AND (timeout < 'Infinity'::double precision))),
    CONSTRAINT jobs_times CHECK ((((run_at >= to_timestamp(('-62135510400'::bigint)::double precision)) AND (run_at <= to_timestamp(('253402128000'::bigint)::double precision))) AND ((scheduled_at >= to_timestamp(('-62135510400'::bigint)::double precision)) AND (scheduled_at <= to_timestamp(('253402128000'::bigint)::double precision))) AND ((created_at >= to_timestamp(('-62135510400'::bigint)::double precision)) AND (created_at <= to_timestamp(('253402128000'::bigint)::double precision)))))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_limit='2000', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='5000', fillfactor='45');

CREATE VIEW pgqueue.all_jobs AS
 SELECT jobs.id,
    jobs.task,
    jobs.queue,
    jobs.priority,
    jobs.state,
        CASE
            WHEN ((jobs.state <> 'queued'::text) OR (jobs.run_at <= pgqueue.clock())) THEN jobs.state
            WHEN (jobs.attempt > 0) THEN 'retrying'::text
            ELSE 'scheduled'::text
        END AS status,
    jobs.payload,
    jobs.tenant,
    jobs.tags,
    jobs.unique_key,
    jobs.limits,
    jobs.blocked_on,
    jobs.run_at,
    jobs.scheduled_at,
    jobs.attempt,
    jobs.max_attempts,
    jobs.lease,
    jobs.worker_id,
    jobs.started_at,
    jobs.created_at,
    jobs.timeout,
    jobs.errors,
    jobs.progress,
    jobs.headers,
    jobs.workflow_id,
    jobs.cancel_requested_at,
    NULL::timestamp with time zone AS finished_at,
    NULL::jsonb AS result,
    jobs.expires_at,
    jobs.crashes,
    jobs.suspect
   FROM pgqueue.jobs
UNION ALL
 SELECT finished_jobs.id,
    finished_jobs.task,
    finished_jobs.queue,
    finished_jobs.priority,
    finished_jobs.state,
    finished_jobs.state AS status,
    finished_jobs.payload,
    finished_jobs.tenant,
    finished_jobs.tags,
    finished_jobs.unique_key,
    finished_jobs.limits,
    NULL::text AS blocked_on,
    finished_jobs.run_at,
    finished_jobs.scheduled_at,
    finished_jobs.attempt,
    finished_jobs.max_attempts,
    finished_jobs.lease,
    finished_jobs.worker_id,
    finished_jobs.started_at,
    finished_jobs.created_at,
    finished_jobs.timeout,
    finished_jobs.errors,
    finished_jobs.progress,
    finished_jobs.headers,
    finished_jobs.workflow_id,
    finished_jobs.cancel_requested_at,
    finished_jobs.finished_at,
    finished_jobs.result,
    finished_jobs.expires_at,
    finished_jobs.crashes,
    finished_jobs.suspect
   FROM pgqueue.finished_jobs;

CREATE TABLE pgqueue.audit_log (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    who text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT audit_log_source CHECK ((source = ANY (ARRAY['cli'::text, 'api'::text, 'ui'::text, 'code'::text])))
);

ALTER TABLE pgqueue.audit_log ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.audit_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.backfills (
    id bigint NOT NULL,
    schedule_id bigint NOT NULL,
    range_start timestamp with time zone NOT NULL,
    range_end timestamp with time zone NOT NULL,
    concurrency integer DEFAULT 1 NOT NULL,
    reached timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    created_by text NOT NULL,
    cancelled_at timestamp with time zone,
    finished_at timestamp with time zone,
    CONSTRAINT backfills_concurrency CHECK ((concurrency >= 1)),
    CONSTRAINT backfills_range CHECK ((range_start < range_end))
);

CREATE TABLE pgqueue.schedules (
    id bigint NOT NULL,
    name text NOT NULL,
    cron text NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    task text NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    catch_up text DEFAULT 'all'::text NOT NULL,
    overlap text DEFAULT 'queue'::text NOT NULL,
    delay double precision DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 1 NOT NULL,
    window_parameters text[] DEFAULT '{}'::text[] NOT NULL,
    next_run_at timestamp with time zone NOT NULL,
    last_run_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    last_error text,
    retry_at timestamp with time zone,
    priority smallint DEFAULT 5 NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    tenant text,
    timeout double precision,
    window_mode text DEFAULT 'window'::text NOT NULL,
    catch_up_max_age double precision,
    catch_up_max_count integer,
    jitter double precision DEFAULT 0 NOT NULL,
    starts_at timestamp with time zone,
    ends_at timestamp with time zone,
    after_id bigint,
    declared boolean DEFAULT false NOT NULL,
    paused_at timestamp with time zone,
    paused_by text,
    pause_reason text,
    CONSTRAINT schedules_after_another CHECK ((after_id <> id)),
    CONSTRAINT schedules_catch_up CHECK ((catch_up = ANY (ARRAY['all'::text, 'latest'::text, 'none'::text]))),
    CONSTRAINT schedules_catch_up_max_age CHECK (((catch_up_max_age > (0)::double precision) AND (catch_up_max_age < 'Infinity'::double precision))),
    CONSTRAINT schedules_catch_up_max_count CHECK (((catch_up_max_count >= 1) AND (catch_up_max_count <= 10000))),
    CONSTRAINT schedules_delay CHECK (((delay >= (0)::double precision) AND (delay <= (31622400)::double precision))),
    CONSTRAINT schedules_failing_says_why CHECK (((failures > 0) = (last_error IS NOT NULL))),
    CONSTRAINT schedules_jitter CHECK (((jitter >= (0)::double precision) AND (jitter <= (31622400)::double precision))),
    CONSTRAINT schedules_life CHECK ((starts_at < ends_at)),
    CONSTRAINT schedules_max_attempts CHECK ((max_attempts >= 1)),
    CONSTRAINT schedules_name CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT schedules_overlap CHECK ((overlap = ANY (ARRAY['queue'::text, 'skip'::text, 'cancel-running'::text, 'allow'::text]))),
    CONSTRAINT schedules_payload CHECK ((jsonb_typeof(payload) = 'object'::text)),
    CONSTRAINT schedules_priority CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT schedules_queue CHECK ((queue ~ '^[A-Za-z0-9_.:-]{1,100}$'::text)),
    CONSTRAINT schedules_timeout CHECK (((timeout > (0)::double precision) AND (timeout < 'Infinity'::double precision))),
    CONSTRAINT schedules_times CHECK ((((next_run_at >= '0001-01-02 00:00:00+00'::timestamp with time zone) AND (next_run_at <= '9999-12-30 00:00:00+00'::timestamp with time zone)) AND ((starts_at >= '0001-01-02 00:00:00+00'::timestamp with time zone) AND (starts_at <= '9999-12-30 00:00:00+00'::timestamp with time zone)) AND ((ends_at >= '0001-01-02 00:00:00+00'::timestamp with time zone) AND (ends_at <= '9999-12-30 00:00:00+00'::timestamp with time zone)))),
    CONSTRAINT schedules_window_mode CHECK ((window_mode = ANY (ARRAY['window'::text, 'since-last-run'::text])))
);

CREATE TABLE pgqueue.windows (
    id bigint NOT NULL,
    schedule_id bigint NOT NULL,
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    mode text DEFAULT 'window'::text NOT NULL,
    job_id bigint,
    run integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    held boolean DEFAULT false NOT NULL,
    due_at timestamp with time zone,
    backfill_id bigint,
    outcome text,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    CONSTRAINT windows_held_is_open CHECK (((NOT held) OR (outcome IS NULL))),
    CONSTRAINT windows_mode CHECK ((mode = ANY (ARRAY['window'::text, 'catchup'::text, 'since-last-run'::text, 'backfill'::text, 'manual'::text]))),
    CONSTRAINT windows_outcome CHECK ((outcome = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'skipped'::text, 'lost'::text]))),
    CONSTRAINT windows_run CHECK ((run >= 1)),
    CONSTRAINT windows_span CHECK ((window_start < window_end))
);

CREATE VIEW pgqueue.backfill_status AS
 SELECT backfills.id,
    schedules.name AS schedule,
    backfills.range_start,
    backfills.range_end,
    backfills.concurrency,
    backfills.reached,
    backfills.created_at,
    backfills.created_by,
    backfills.cancelled_at,
    counted.windows,
    counted.waiting,
    counted.open,
    counted.completed,
    counted.failed,
        CASE
            WHEN (backfills.cancelled_at IS NOT NULL) THEN 'cancelled'::text
            WHEN ((backfills.reached < backfills.range_end) OR ((counted.waiting + counted.open) > 0)) THEN 'running'::text
            ELSE 'done'::text
        END AS state
   FROM ((pgqueue.backfills
     JOIN pgqueue.schedules ON ((schedules.id = backfills.schedule_id)))
     CROSS JOIN LATERAL ( SELECT count(*) AS windows,
            count(*) FILTER (WHERE windows.held) AS waiting,
            count(*) FILTER (WHERE ((live.id IS NOT NULL) AND (NOT windows.held))) AS open,
            count(*) FILTER (WHERE ((live.id IS NULL) AND (COALESCE(ended.state, windows.outcome) = 'completed'::text))) AS completed,
            count(*) FILTER (WHERE ((live.id IS NULL) AND (NOT windows.held) AND (COALESCE(ended.state, windows.outcome, 'lost'::text) <> 'completed'::text))) AS failed
           FROM ((pgqueue.windows
             LEFT JOIN pgqueue.jobs live ON ((live.id = windows.job_id)))
             LEFT JOIN pgqueue.finished_jobs ended ON (((windows.outcome IS NULL) AND (ended.id = windows.job_id) AND (ended.finished_at >= windows.created_at))))
          WHERE ((windows.schedule_id = backfills.schedule_id) AND (windows.window_start >= backfills.range_start) AND (windows.window_start < backfills.range_end) AND (windows.backfill_id = backfills.id))) counted);

ALTER TABLE pgqueue.backfills ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.backfills_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.chores (
    name text NOT NULL,
    every interval NOT NULL,
    due_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    taken_until timestamp with time zone,
    taken_by bigint,
    last_run_at timestamp with time zone,
    last_seconds double precision,
    last_error text,
    CONSTRAINT chores_every CHECK ((every > '00:00:00'::interval))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

CREATE VIEW pgqueue.dead_letters AS
 SELECT id,
    task,
    queue,
    tenant,
    tags,
    payload,
    attempt,
    max_attempts,
    ((errors -> '-1'::integer) ->> 'reason'::text) AS reason,
    ((errors -> '-1'::integer) ->> 'message'::text) AS message,
    created_at,
    started_at,
    finished_at
   FROM pgqueue.finished_jobs
  WHERE (state = 'failed'::text);

CREATE TABLE pgqueue.events (
    id bigint NOT NULL,
    name text NOT NULL,
    key text NOT NULL,
    payload jsonb DEFAULT 'null'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    delivered_at timestamp with time zone,
    CONSTRAINT events_key CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 1000))),
    CONSTRAINT events_name CHECK ((name ~ '^[A-Za-z0-9_.:-]{1,200}$'::text))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

ALTER TABLE pgqueue.events ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.finished_jobs_completed (
    id bigint CONSTRAINT finished_jobs_id_not_null NOT NULL,
    task text CONSTRAINT finished_jobs_task_not_null NOT NULL,
    queue text CONSTRAINT finished_jobs_queue_not_null NOT NULL,
    priority smallint CONSTRAINT finished_jobs_priority_not_null NOT NULL,
    state text CONSTRAINT finished_jobs_state_not_null NOT NULL,
    payload jsonb CONSTRAINT finished_jobs_payload_not_null NOT NULL,
    tenant text,
    tags text[] CONSTRAINT finished_jobs_tags_not_null NOT NULL,
    unique_key text,
    limits text[] CONSTRAINT finished_jobs_limits_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT finished_jobs_run_at_not_null NOT NULL,
    scheduled_at timestamp with time zone CONSTRAINT finished_jobs_scheduled_at_not_null NOT NULL,
    attempt integer CONSTRAINT finished_jobs_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT finished_jobs_max_attempts_not_null NOT NULL,
    lease bigint,
    worker_id bigint,
    started_at timestamp with time zone,
    created_at timestamp with time zone CONSTRAINT finished_jobs_created_at_not_null NOT NULL,
    timeout double precision,
    errors jsonb CONSTRAINT finished_jobs_errors_not_null NOT NULL,
    progress jsonb,
    headers jsonb CONSTRAINT finished_jobs_headers_not_null NOT NULL,
    workflow_id bigint,
    cancel_requested_at timestamp with time zone,
    finished_at timestamp with time zone DEFAULT pgqueue.clock_now() CONSTRAINT finished_jobs_finished_at_not_null NOT NULL,
    result jsonb,
    expires_at timestamp with time zone,
    crashes integer DEFAULT 0 CONSTRAINT finished_jobs_crashes_not_null NOT NULL,
    suspect boolean DEFAULT false CONSTRAINT finished_jobs_suspect_not_null NOT NULL,
    CONSTRAINT finished_jobs_final_state CHECK ((state = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (finished_at);

CREATE TABLE pgqueue.finished_jobs_failed (
    id bigint CONSTRAINT finished_jobs_id_not_null NOT NULL,
    task text CONSTRAINT finished_jobs_task_not_null NOT NULL,
    queue text CONSTRAINT finished_jobs_queue_not_null NOT NULL,
    priority smallint CONSTRAINT finished_jobs_priority_not_null NOT NULL,
    state text CONSTRAINT finished_jobs_state_not_null NOT NULL,
    payload jsonb CONSTRAINT finished_jobs_payload_not_null NOT NULL,
    tenant text,
    tags text[] CONSTRAINT finished_jobs_tags_not_null NOT NULL,
    unique_key text,
    limits text[] CONSTRAINT finished_jobs_limits_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT finished_jobs_run_at_not_null NOT NULL,
    scheduled_at timestamp with time zone CONSTRAINT finished_jobs_scheduled_at_not_null NOT NULL,
    attempt integer CONSTRAINT finished_jobs_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT finished_jobs_max_attempts_not_null NOT NULL,
    lease bigint,
    worker_id bigint,
    started_at timestamp with time zone,
    created_at timestamp with time zone CONSTRAINT finished_jobs_created_at_not_null NOT NULL,
    timeout double precision,
    errors jsonb CONSTRAINT finished_jobs_errors_not_null NOT NULL,
    progress jsonb,
    headers jsonb CONSTRAINT finished_jobs_headers_not_null NOT NULL,
    workflow_id bigint,
    cancel_requested_at timestamp with time zone,
    finished_at timestamp with time zone DEFAULT pgqueue.clock_now() CONSTRAINT finished_jobs_finished_at_not_null NOT NULL,
    result jsonb,
    expires_at timestamp with time zone,
    crashes integer DEFAULT 0 CONSTRAINT finished_jobs_crashes_not_null NOT NULL,
    suspect boolean DEFAULT false CONSTRAINT finished_jobs_suspect_not_null NOT NULL,
    CONSTRAINT finished_jobs_final_state CHECK ((state = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (finished_at);

CREATE TABLE pgqueue.job_dependencies (
    child_id bigint NOT NULL,
    parent_id bigint NOT NULL,
    CONSTRAINT job_dependencies_another CHECK ((child_id <> parent_id))
);

CREATE TABLE pgqueue.job_logs (
    id bigint NOT NULL,
    job_id bigint NOT NULL,
    attempt integer NOT NULL,
    at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    level text DEFAULT 'info'::text NOT NULL,
    message text NOT NULL,
    CONSTRAINT job_logs_level CHECK ((level = ANY (ARRAY['debug'::text, 'info'::text, 'warning'::text, 'error'::text])))
);

ALTER TABLE pgqueue.job_logs ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.job_logs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.job_steps (
    job_id bigint NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    attempt integer NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    finished_at timestamp with time zone,
    result jsonb,
    wake_at timestamp with time zone,
    event text,
    event_key text,
    event_id bigint,
    CONSTRAINT job_steps_event_ends_the_wait CHECK (((event_id IS NULL) OR (finished_at IS NOT NULL))),
    CONSTRAINT job_steps_kind CHECK ((kind = ANY (ARRAY['step'::text, 'sleep'::text, 'wait'::text]))),
    CONSTRAINT job_steps_name CHECK (((octet_length(name) >= 1) AND (octet_length(name) <= 1300))),
    CONSTRAINT job_steps_sleep_has_end CHECK (((kind <> 'sleep'::text) OR (wake_at IS NOT NULL))),
    CONSTRAINT job_steps_step_has_result CHECK (((kind <> 'step'::text) OR ((finished_at IS NOT NULL) AND (result IS NOT NULL)))),
    CONSTRAINT job_steps_wait_names_its_event CHECK ((((kind = 'wait'::text) = (event IS NOT NULL)) AND ((kind = 'wait'::text) = (event_key IS NOT NULL))))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

ALTER TABLE pgqueue.jobs ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.jobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.limit_starts (
    name text NOT NULL,
    at timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

CREATE TABLE pgqueue.limit_turns (
    name text NOT NULL,
    tenant text NOT NULL,
    at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

CREATE TABLE pgqueue.limits (
    name text NOT NULL,
    declared boolean NOT NULL,
    pattern text,
    running integer,
    starts integer,
    per double precision,
    on_failure text,
    until timestamp with time zone,
    set_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    set_by text NOT NULL,
    CONSTRAINT limits_caps CHECK (((running IS NOT NULL) OR (starts IS NOT NULL))),
    CONSTRAINT limits_name CHECK (((name ~ '^[A-Za-z0-9]'::text) AND (octet_length(name) <= 500))),
    CONSTRAINT limits_on_failure CHECK ((on_failure = ANY (ARRAY['hold'::text, 'pass'::text]))),
    CONSTRAINT limits_rate CHECK ((((starts IS NULL) = (per IS NULL)) AND (starts >= 1) AND (per > (0)::double precision) AND (per <= (86400)::double precision))),
    CONSTRAINT limits_running CHECK ((running >= 0))
);

CREATE VIEW pgqueue.limit_usage AS
 SELECT names.name,
    rule.running,
    rule.starts,
    rule.per,
    rule.on_failure,
    COALESCE(held.jobs, (0)::bigint) AS used,
    GREATEST((0)::bigint, (rule.running - COALESCE(held.jobs, (0)::bigint))) AS free,
    ( SELECT count(*) AS count
           FROM pgqueue.limit_starts
          WHERE ((limit_starts.name = names.name) AND (limit_starts.at > (pgqueue.clock() - (rule.per * '00:00:01'::interval))))) AS started,
    COALESCE(line.jobs, (0)::bigint) AS waiting,
    rule.until,
    rule.since
   FROM (((( SELECT limits.name
           FROM pgqueue.limits
          WHERE ((limits.pattern IS NULL) AND (limits.declared OR (limits.until IS NULL) OR (limits.until > pgqueue.clock())))
        UNION
         SELECT unnest(jobs.limits) AS unnest
           FROM pgqueue.jobs
          WHERE (jobs.admitted_seq IS NOT NULL)
        UNION
         SELECT jobs.blocked_on
           FROM pgqueue.jobs
          WHERE (jobs.blocked_on IS NOT NULL)) names
     CROSS JOIN LATERAL pgqueue.limit_rule(names.name) rule(running, starts, per, on_failure, until, since))
     LEFT JOIN ( SELECT unnest(jobs.limits) AS name,
            count(*) AS jobs
           FROM pgqueue.jobs
          WHERE (jobs.admitted_seq IS NOT NULL)
          GROUP BY (unnest(jobs.limits))) held ON ((held.name = names.name)))
     LEFT JOIN ( SELECT jobs.blocked_on AS name,
            count(*) AS jobs
           FROM pgqueue.jobs
          WHERE (jobs.blocked_on IS NOT NULL)
          GROUP BY jobs.blocked_on) line ON ((line.name = names.name)))
  WHERE (NOT starts_with(names.name, '@'::text));

CREATE TABLE pgqueue.order_holds (
    name text NOT NULL,
    job_id bigint NOT NULL,
    finished_at timestamp with time zone NOT NULL
);

CREATE TABLE pgqueue.queues (
    name text NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    paused_at timestamp with time zone,
    paused_by text,
    pause_reason text,
    limited boolean DEFAULT false NOT NULL,
    max_queued integer,
    CONSTRAINT queues_max_queued CHECK ((max_queued >= 0)),
    CONSTRAINT queues_name CHECK ((name ~ '^[A-Za-z0-9_.:-]{1,100}$'::text))
);

CREATE VIEW pgqueue.queue_stats AS
 SELECT queue,
    COALESCE(settings.paused, false) AS paused,
    count(*) FILTER (WHERE (live.status = 'queued'::text)) AS queued,
    count(*) FILTER (WHERE (live.status = 'scheduled'::text)) AS scheduled,
    count(*) FILTER (WHERE (live.status = 'retrying'::text)) AS retrying,
    count(*) FILTER (WHERE (live.status = 'blocked'::text)) AS blocked,
    count(*) FILTER (WHERE (live.status = 'waiting'::text)) AS waiting,
    count(*) FILTER (WHERE (live.status = 'running'::text)) AS running,
    (pgqueue.clock() - min(live.run_at) FILTER (WHERE (live.status = 'queued'::text))) AS oldest_due,
    settings.paused_at,
    settings.paused_by,
    settings.pause_reason
   FROM (( SELECT jobs.queue,
            jobs.run_at,
                CASE
                    WHEN ((jobs.state <> 'queued'::text) OR (jobs.run_at <= pgqueue.clock())) THEN jobs.state
                    WHEN (jobs.attempt > 0) THEN 'retrying'::text
                    ELSE 'scheduled'::text
                END AS status
           FROM pgqueue.jobs) live
     FULL JOIN ( SELECT queues.name AS queue,
            queues.paused,
            queues.paused_at,
            queues.paused_by,
            queues.pause_reason
           FROM pgqueue.queues) settings USING (queue))
  GROUP BY queue, settings.paused, settings.paused_at, settings.paused_by, settings.pause_reason;

CREATE TABLE pgqueue.quotas (
    tenant text NOT NULL,
    max_waiting integer NOT NULL,
    CONSTRAINT quotas_max_waiting CHECK ((max_waiting >= 0))
);

CREATE TABLE pgqueue.retention (
    state_group text NOT NULL,
    keep interval NOT NULL,
    keep_count bigint,
    CONSTRAINT retention_keep CHECK ((keep >= '01:00:00'::interval)),
    CONSTRAINT retention_keep_count CHECK ((keep_count >= 0)),
    CONSTRAINT retention_state_group CHECK ((state_group = ANY (ARRAY['completed'::text, 'failed'::text, 'windows'::text]))),
    CONSTRAINT retention_windows CHECK (((state_group <> 'windows'::text) OR (keep_count IS NULL)))
);

CREATE VIEW pgqueue.schedule_health AS
 SELECT schedules.id,
    schedules.name,
    schedules.enabled,
    schedules.next_run_at,
    schedules.last_run_at,
    schedules.failures,
    schedules.last_error,
    seen.late_by,
    seen.failed_in_a_row,
    seen.open_since,
    seen.waiting,
    array_remove(ARRAY[
        CASE
            WHEN (schedules.failures > 0) THEN 'not-ticking'::text
            ELSE NULL::text
        END,
        CASE
            WHEN (seen.late_by > '00:01:00'::interval) THEN 'late'::text
            ELSE NULL::text
        END,
        CASE
            WHEN (seen.failed_in_a_row >= 5) THEN 'failing'::text
            ELSE NULL::text
        END,
        CASE
            WHEN seen.is_stuck THEN 'stuck'::text
            ELSE NULL::text
        END], NULL::text) AS problems
   FROM (pgqueue.schedules
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN (schedules.enabled AND (schedules.next_run_at < pgqueue.clock()) AND ((schedules.ends_at IS NULL) OR (schedules.next_run_at <= schedules.ends_at))) THEN (pgqueue.clock() - schedules.next_run_at)
                    ELSE NULL::interval
                END AS late_by,
            ( SELECT count(*) AS count
                   FROM ( SELECT bool_and((newest.outcome = 'failed'::text)) OVER (ORDER BY newest.window_start DESC) AS so_far
                           FROM ( SELECT windows.window_start,
                                    windows.outcome
                                   FROM pgqueue.windows
                                  WHERE ((windows.schedule_id = schedules.id) AND (NOT windows.held))
                                  ORDER BY windows.window_start DESC
                                 LIMIT 40) newest
                          WHERE (newest.outcome = ANY (ARRAY['completed'::text, 'failed'::text]))) latest
                  WHERE latest.so_far) AS failed_in_a_row,
            COALESCE(open_ones.open_since, first_held.created_at) AS open_since,
                CASE
                    WHEN (open_ones.open_since IS NULL) THEN COALESCE(first_held.is_stuck, false)
                    ELSE open_ones.is_stuck
                END AS is_stuck,
            ( SELECT count(*) AS count
                   FROM ( SELECT
                           FROM pgqueue.windows
                          WHERE ((windows.schedule_id = schedules.id) AND windows.held AND (windows.backfill_id IS NULL))
                         LIMIT 1000) held_ones) AS waiting
           FROM (( SELECT min(windows.created_at) AS open_since,
                    COALESCE(bool_or(((pgqueue.clock() - windows.created_at) > GREATEST('01:00:00'::interval, (windows.window_end - windows.window_start)))), false) AS is_stuck
                   FROM ( SELECT windows_1.id,
                            windows_1.window_start,
                            windows_1.window_end,
                            windows_1.job_id,
                            windows_1.created_at
                           FROM pgqueue.windows windows_1
                          WHERE ((windows_1.schedule_id = schedules.id) AND (windows_1.outcome IS NULL) AND (NOT windows_1.held))
                          ORDER BY windows_1.id
                         LIMIT 100) windows
                  WHERE (EXISTS ( SELECT
                           FROM pgqueue.jobs
                          WHERE (jobs.id = windows.job_id)))) open_ones
             LEFT JOIN LATERAL ( SELECT windows.created_at,
                    ((pgqueue.clock() - windows.created_at) > GREATEST('01:00:00'::interval, (windows.window_end - windows.window_start))) AS is_stuck
                   FROM pgqueue.windows
                  WHERE ((windows.schedule_id = schedules.id) AND windows.held AND (windows.backfill_id IS NULL))
                  ORDER BY windows.window_start
                 LIMIT 1) first_held ON (true))
         OFFSET 0) seen);

ALTER TABLE pgqueue.schedules ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.schedules_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.schema_info (
    one boolean DEFAULT true NOT NULL,
    version integer NOT NULL,
    min_compatible integer NOT NULL,
    CONSTRAINT schema_info_compatible CHECK (((min_compatible >= 1) AND (min_compatible <= version))),
    CONSTRAINT schema_info_one_row CHECK (one)
);

CREATE TABLE pgqueue.workers (
    id bigint NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    queues text[] NOT NULL,
    concurrency integer NOT NULL,
    tasks text[] DEFAULT '{}'::text[] NOT NULL,
    started_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    started_jobs bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    CONSTRAINT workers_concurrency CHECK ((concurrency > 0))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

CREATE VIEW pgqueue.unknown_tasks AS
 SELECT task,
    queue,
    jobs,
    oldest_run_at
   FROM ( SELECT jobs.task,
            jobs.queue,
            count(*) AS jobs,
            min(jobs.run_at) AS oldest_run_at
           FROM pgqueue.jobs
          WHERE (((jobs.state = 'queued'::text) OR ((jobs.blocked_on COLLATE "C") = '@new'::text) OR starts_with(jobs.blocked_on, '@worker:'::text)) AND (jobs.run_at <= pgqueue.clock()))
          GROUP BY jobs.task, jobs.queue) due
  WHERE (NOT (EXISTS ( SELECT
           FROM pgqueue.workers
          WHERE ((workers.heartbeat_at > (pgqueue.clock() - '00:00:15'::interval)) AND ((cardinality(workers.queues) = 0) OR (due.queue = ANY (workers.queues))) AND (due.task = ANY (workers.tasks))))));

CREATE VIEW pgqueue.stuck_jobs AS
 SELECT jobs.id,
    jobs.task,
    jobs.queue,
    jobs.state,
    jobs.worker_id,
    stuck.reason,
    stuck.since
   FROM ((pgqueue.jobs
     LEFT JOIN pgqueue.workers ON ((workers.id = jobs.worker_id)))
     CROSS JOIN LATERAL ( VALUES ('worker-died'::text,(COALESCE(workers.heartbeat_at, jobs.started_at) + '00:00:15'::interval),((workers.id IS NULL) OR (workers.heartbeat_at < (pgqueue.clock() - '00:00:15'::interval)))), ('over-timeout'::text,(jobs.started_at + (jobs.timeout * '00:00:01'::interval)),((jobs.started_at + ((jobs.timeout + (10)::double precision) * '00:00:01'::interval)) < pgqueue.clock())), ('cancel-ignored'::text,jobs.cancel_requested_at,(jobs.cancel_requested_at < (pgqueue.clock() - '00:00:10'::interval)))) stuck(reason, since, is_so))
  WHERE ((jobs.state = 'running'::text) AND stuck.is_so)
UNION ALL
 SELECT jobs.id,
    jobs.task,
    jobs.queue,
    jobs.state,
    jobs.worker_id,
    'no-worker'::text AS reason,
    jobs.run_at AS since
   FROM (pgqueue.unknown_tasks
     JOIN pgqueue.jobs USING (task, queue))
  WHERE (((jobs.state = 'queued'::text) OR ((jobs.blocked_on COLLATE "C") = '@new'::text) OR starts_with(jobs.blocked_on, '@worker:'::text)) AND (jobs.run_at < (pgqueue.clock() - '00:05:00'::interval)) AND (NOT (EXISTS ( SELECT
           FROM pgqueue.queues
          WHERE ((queues.name = jobs.queue) AND queues.paused)))))
UNION ALL
 SELECT heads.id,
    heads.task,
    heads.queue,
    heads.state,
    heads.worker_id,
    'order-held'::text AS reason,
    held.finished_at AS since
   FROM (pgqueue.order_holds held
     CROSS JOIN LATERAL ( SELECT jobs.id,
            jobs.task,
            jobs.queue,
            jobs.state,
            jobs.worker_id
           FROM pgqueue.jobs
          WHERE (jobs.order_name = held.name)
          ORDER BY jobs.scheduled_at, jobs.id
         LIMIT 1) heads)
  WHERE ((heads.id <> held.job_id) AND (NOT (EXISTS ( SELECT
           FROM pgqueue.jobs
          WHERE (jobs.id = held.job_id)))) AND (EXISTS ( SELECT
           FROM pgqueue.finished_jobs
          WHERE ((finished_jobs.id = held.job_id) AND (finished_jobs.finished_at = held.finished_at) AND (finished_jobs.state = 'failed'::text)))));

CREATE TABLE pgqueue.task_limits (
    task text NOT NULL,
    names text[] NOT NULL,
    set_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL
);

CREATE VIEW pgqueue.task_stats AS
 SELECT task,
    count(*) FILTER (WHERE (state = 'completed'::text)) AS completed,
    count(*) FILTER (WHERE (state = 'failed'::text)) AS failed,
    count(*) FILTER (WHERE (state = 'cancelled'::text)) AS cancelled,
    avg((finished_at - started_at)) FILTER (WHERE (state = 'completed'::text)) AS average_time,
    max(finished_at) AS last_finished_at
   FROM pgqueue.finished_jobs
  WHERE (finished_at > (pgqueue.clock() - '24:00:00'::interval))
  GROUP BY task;

CREATE TABLE pgqueue.unique_keys (
    key text NOT NULL,
    job_id bigint NOT NULL,
    until timestamp with time zone NOT NULL
);

CREATE VIEW pgqueue.window_status AS
 SELECT windows.id,
    windows.schedule_id,
    schedules.name AS schedule,
    windows.window_start,
    windows.window_end,
    windows.mode,
    windows.run,
    windows.job_id,
    windows.created_at,
    COALESCE(live.state, ended.state, windows.outcome, 'lost'::text) AS state,
    COALESCE(live.attempt, ended.attempt) AS attempt,
    COALESCE(live.started_at, ended.started_at, windows.started_at) AS started_at,
        CASE
            WHEN (live.id IS NULL) THEN COALESCE(ended.finished_at, windows.finished_at)
            ELSE NULL::timestamp with time zone
        END AS finished_at,
    windows.held,
    windows.backfill_id,
    (COALESCE(live.started_at, ended.started_at, windows.started_at) - GREATEST(windows.due_at, windows.window_end, windows.created_at)) AS lag,
    (
        CASE
            WHEN (live.id IS NULL) THEN COALESCE(ended.finished_at, windows.finished_at)
            WHEN (live.state = 'running'::text) THEN pgqueue.clock()
            ELSE NULL::timestamp with time zone
        END - COALESCE(live.started_at, ended.started_at, windows.started_at)) AS duration
   FROM (((pgqueue.windows
     JOIN pgqueue.schedules ON ((schedules.id = windows.schedule_id)))
     LEFT JOIN pgqueue.jobs live ON ((live.id = windows.job_id)))
     LEFT JOIN pgqueue.finished_jobs ended ON (((ended.id = windows.job_id) AND (ended.finished_at >= windows.created_at))));

ALTER TABLE pgqueue.windows ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.windows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW pgqueue.worker_status AS
 SELECT id,
    host,
    pid,
    version,
    queues,
    concurrency,
    started_at,
    heartbeat_at,
    (pgqueue.clock() - heartbeat_at) AS silent_for,
    (heartbeat_at > (pgqueue.clock() - '00:00:15'::interval)) AS alive,
    ( SELECT count(*) AS count
           FROM pgqueue.jobs
          WHERE ((jobs.worker_id = workers.id) AND (jobs.state = 'running'::text))) AS running
   FROM pgqueue.workers;

ALTER TABLE pgqueue.workers ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.workers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.workflow_news (
    id bigint NOT NULL,
    workflow_id bigint NOT NULL,
    job_id bigint NOT NULL,
    at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

ALTER TABLE pgqueue.workflow_news ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.workflow_news_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.workflow_nodes (
    job_id bigint NOT NULL,
    workflow_id bigint NOT NULL,
    name text NOT NULL,
    group_name text,
    task text NOT NULL,
    parent_failed text DEFAULT 'cancel'::text NOT NULL,
    parent_cancelled text DEFAULT 'cancel'::text NOT NULL,
    waits_for bigint,
    outcome text,
    result jsonb,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    CONSTRAINT workflow_nodes_ended_waits_for_nobody CHECK (((outcome IS NULL) OR (waits_for IS NULL))),
    CONSTRAINT workflow_nodes_name CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT workflow_nodes_outcome CHECK ((outcome = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'deleted'::text]))),
    CONSTRAINT workflow_nodes_parent_cancelled CHECK ((parent_cancelled = ANY (ARRAY['cancel'::text, 'ignore'::text, 'fail'::text]))),
    CONSTRAINT workflow_nodes_parent_failed CHECK ((parent_failed = ANY (ARRAY['cancel'::text, 'ignore'::text, 'fail'::text])))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='1000');

CREATE VIEW pgqueue.workflow_node_status AS
 SELECT nodes.workflow_id,
    nodes.job_id,
    nodes.name,
    nodes.group_name,
    nodes.task,
    COALESCE(live.state, nodes.outcome, ended.state, 'deleted'::text) AS state,
    nodes.parent_failed,
    nodes.parent_cancelled,
    nodes.waits_for,
    COALESCE(live.started_at, nodes.started_at, ended.started_at) AS started_at,
        CASE
            WHEN (live.id IS NULL) THEN COALESCE(nodes.finished_at, ended.finished_at)
            ELSE NULL::timestamp with time zone
        END AS finished_at
   FROM ((pgqueue.workflow_nodes nodes
     LEFT JOIN pgqueue.jobs live ON ((live.id = nodes.job_id)))
     LEFT JOIN LATERAL ( SELECT finished_jobs.state,
            finished_jobs.started_at,
            finished_jobs.finished_at
           FROM pgqueue.finished_jobs
          WHERE ((nodes.outcome IS NULL) AND (live.id IS NULL) AND (finished_jobs.id = nodes.job_id))
          ORDER BY finished_jobs.finished_at DESC
         LIMIT 1) ended ON (true));

CREATE TABLE pgqueue.workflows (
    id bigint NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    open_job_id bigint,
    cancelled_at timestamp with time zone,
    finished_at timestamp with time zone,
    outcome text,
    completed bigint,
    failed bigint,
    cancelled bigint,
    CONSTRAINT workflows_finished_says_how CHECK (((finished_at IS NULL) = (outcome IS NULL))),
    CONSTRAINT workflows_name CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT workflows_outcome CHECK ((outcome = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

CREATE VIEW pgqueue.workflow_status AS
 SELECT workflows.id,
    workflows.name,
    COALESCE(workflows.outcome, 'running'::text) AS state,
    counted.nodes,
    counted.waiting,
    counted.blocked,
    counted.queued,
    counted.running,
    counted.completed,
    counted.failed,
    counted.cancelled,
    workflows.created_at,
    workflows.cancelled_at,
    workflows.finished_at
   FROM (pgqueue.workflows
     CROSS JOIN LATERAL ( SELECT ((workflows.completed + workflows.failed) + workflows.cancelled) AS nodes,
            (0)::bigint AS waiting,
            (0)::bigint AS blocked,
            (0)::bigint AS queued,
            (0)::bigint AS running,
            workflows.completed,
            workflows.failed,
            workflows.cancelled
          WHERE (workflows.outcome IS NOT NULL)
        UNION ALL
         SELECT count(*) AS count,
            count(*) FILTER (WHERE (each_node.state = 'waiting'::text)) AS count,
            count(*) FILTER (WHERE (each_node.state = 'blocked'::text)) AS count,
            count(*) FILTER (WHERE (each_node.state = 'queued'::text)) AS count,
            count(*) FILTER (WHERE (each_node.state = 'running'::text)) AS count,
            count(*) FILTER (WHERE (each_node.state = 'completed'::text)) AS count,
            count(*) FILTER (WHERE (each_node.state = 'failed'::text)) AS count,
            count(*) FILTER (WHERE (each_node.state = ANY (ARRAY['cancelled'::text, 'deleted'::text]))) AS count
           FROM ( SELECT COALESCE(live.state, nodes.outcome, 'running'::text) AS state
                   FROM (pgqueue.workflow_nodes nodes
                     LEFT JOIN pgqueue.jobs live ON ((live.id = nodes.job_id)))
                  WHERE (nodes.workflow_id = workflows.id)) each_node
          WHERE (workflows.outcome IS NULL)
         HAVING (workflows.outcome IS NULL)) counted);

ALTER TABLE pgqueue.workflows ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.workflows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY pgqueue.finished_jobs ATTACH PARTITION pgqueue.finished_jobs_completed FOR VALUES IN ('completed');

ALTER TABLE ONLY pgqueue.finished_jobs ATTACH PARTITION pgqueue.finished_jobs_failed FOR VALUES IN ('failed', 'cancelled');

ALTER TABLE ONLY content.windows
    ADD CONSTRAINT content_windows_once UNIQUE (topic_id, window_start, window_end, mode);

ALTER TABLE ONLY content.windows
    ADD CONSTRAINT content_windows_pkey PRIMARY KEY (id);

ALTER TABLE ONLY content.digests
    ADD CONSTRAINT digests_once UNIQUE (topic_id, window_start, window_end, mode);

ALTER TABLE ONLY content.digests
    ADD CONSTRAINT digests_pkey PRIMARY KEY (id);

ALTER TABLE ONLY content.embeddings
    ADD CONSTRAINT embeddings_pkey PRIMARY KEY (item_id, model);

ALTER TABLE ONLY content.item_vectors
    ADD CONSTRAINT item_vectors_pkey PRIMARY KEY (item_id, model);

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_once UNIQUE (topic_id, dedupe_key);

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_pkey PRIMARY KEY (id);

ALTER TABLE ONLY content.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY content.sources
    ADD CONSTRAINT sources_once UNIQUE (topic_id, kind, canonical_url);

ALTER TABLE ONLY content.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (id);

ALTER TABLE ONLY content.stories
    ADD CONSTRAINT stories_pkey PRIMARY KEY (id);

ALTER TABLE ONLY content.story_items
    ADD CONSTRAINT story_items_once UNIQUE (topic_id, item_id);

ALTER TABLE ONLY content.story_items
    ADD CONSTRAINT story_items_pkey PRIMARY KEY (story_id, item_id);

ALTER TABLE ONLY content.topics
    ADD CONSTRAINT topics_name_key UNIQUE (org_id, name);

ALTER TABLE ONLY content.topics
    ADD CONSTRAINT topics_pkey PRIMARY KEY (id);

ALTER TABLE ONLY content.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY pgqueue.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.backfills
    ADD CONSTRAINT backfills_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.chores
    ADD CONSTRAINT chores_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pgqueue.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.finished_jobs
    ADD CONSTRAINT finished_jobs_pkey PRIMARY KEY (id, finished_at, state);

ALTER TABLE ONLY pgqueue.finished_jobs_completed
    ADD CONSTRAINT finished_jobs_completed_pkey PRIMARY KEY (id, finished_at, state);

ALTER TABLE ONLY pgqueue.finished_jobs_failed
    ADD CONSTRAINT finished_jobs_failed_pkey PRIMARY KEY (id, finished_at, state);

ALTER TABLE ONLY pgqueue.job_dependencies
    ADD CONSTRAINT job_dependencies_pkey PRIMARY KEY (child_id, parent_id);

ALTER TABLE ONLY pgqueue.job_logs
    ADD CONSTRAINT job_logs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.job_steps
    ADD CONSTRAINT job_steps_pkey PRIMARY KEY (job_id, kind, name);

ALTER TABLE ONLY pgqueue.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.limit_turns
    ADD CONSTRAINT limit_turns_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pgqueue.limits
    ADD CONSTRAINT limits_pkey PRIMARY KEY (name, declared);

ALTER TABLE ONLY pgqueue.order_holds
    ADD CONSTRAINT order_holds_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pgqueue.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pgqueue.quotas
    ADD CONSTRAINT quotas_pkey PRIMARY KEY (tenant);

ALTER TABLE ONLY pgqueue.retention
    ADD CONSTRAINT retention_pkey PRIMARY KEY (state_group);

ALTER TABLE ONLY pgqueue.schedules
    ADD CONSTRAINT schedules_name_key UNIQUE (name);

ALTER TABLE ONLY pgqueue.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.schema_info
    ADD CONSTRAINT schema_info_pkey PRIMARY KEY (one);

ALTER TABLE ONLY pgqueue.task_limits
    ADD CONSTRAINT task_limits_pkey PRIMARY KEY (task);

ALTER TABLE ONLY pgqueue.unique_keys
    ADD CONSTRAINT unique_keys_pkey PRIMARY KEY (key);

ALTER TABLE ONLY pgqueue.windows
    ADD CONSTRAINT windows_once UNIQUE (schedule_id, window_start, mode);

ALTER TABLE ONLY pgqueue.windows
    ADD CONSTRAINT windows_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.workflow_news
    ADD CONSTRAINT workflow_news_pkey PRIMARY KEY (workflow_id, id);

ALTER TABLE ONLY pgqueue.workflow_nodes
    ADD CONSTRAINT workflow_nodes_name_key UNIQUE (workflow_id, name);

ALTER TABLE ONLY pgqueue.workflow_nodes
    ADD CONSTRAINT workflow_nodes_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY pgqueue.workflows
    ADD CONSTRAINT workflows_pkey PRIMARY KEY (id);

CREATE INDEX digests_window ON content.digests USING btree (window_id);

CREATE INDEX item_vectors_hash_2048 ON content.item_vectors USING hnsw (((vec)::public.halfvec(2048)) public.halfvec_cosine_ops) WHERE (model = 'hash-2048'::text);

CREATE INDEX item_vectors_hash_512 ON content.item_vectors USING hnsw (((vec)::public.halfvec(512)) public.halfvec_cosine_ops) WHERE (model = 'hash-512'::text);

CREATE INDEX item_vectors_topic ON content.item_vectors USING btree (topic_id, model);

CREATE INDEX item_vectors_wordllama_256 ON content.item_vectors USING hnsw (((vec)::public.halfvec(256)) public.halfvec_cosine_ops) WHERE (model = 'wordllama-256'::text);

CREATE INDEX items_duplicate_of ON content.items USING btree (duplicate_of);

CREATE INDEX items_recent ON content.items USING btree (topic_id, belongs_at);

CREATE INDEX items_source ON content.items USING btree (source_id);

CREATE INDEX items_waiting ON content.items USING btree (topic_id, belongs_at) WHERE (window_id IS NULL);

CREATE INDEX items_window ON content.items USING btree (window_id);

CREATE INDEX stories_active ON content.stories USING btree (topic_id, model) WHERE ((status <> 'closed'::text) AND (merged_into IS NULL));

CREATE INDEX stories_merged_into ON content.stories USING btree (merged_into);

CREATE INDEX story_items_item ON content.story_items USING btree (item_id);

CREATE INDEX audit_log_at ON pgqueue.audit_log USING btree (at);

CREATE INDEX backfills_open ON pgqueue.backfills USING btree (id) WHERE (finished_at IS NULL);

CREATE INDEX backfills_schedule ON pgqueue.backfills USING btree (schedule_id);

CREATE INDEX events_delivered ON pgqueue.events USING btree (delivered_at) WHERE (delivered_at IS NOT NULL);

CREATE INDEX events_of_key ON pgqueue.events USING btree (name, key, created_at, id);

CREATE INDEX events_undelivered ON pgqueue.events USING btree (created_at, id) WHERE (delivered_at IS NULL);

CREATE INDEX job_dependencies_parent ON pgqueue.job_dependencies USING btree (parent_id, child_id);

CREATE INDEX job_logs_job ON pgqueue.job_logs USING btree (job_id, id);

CREATE UNIQUE INDEX job_steps_event ON pgqueue.job_steps USING btree (job_id, event_id) WHERE (event_id IS NOT NULL);

CREATE INDEX job_steps_waiting ON pgqueue.job_steps USING btree (event, event_key) WHERE ((kind = 'wait'::text) AND (finished_at IS NULL));

CREATE INDEX jobs_admitted ON pgqueue.jobs USING btree (admitted_seq) WHERE (admitted_seq IS NOT NULL);

CREATE INDEX jobs_blocked ON pgqueue.jobs USING btree (blocked_on COLLATE "C", COALESCE(tenant, ''::text), priority DESC, run_at, id) WHERE (blocked_on IS NOT NULL);

CREATE INDEX jobs_claim ON pgqueue.jobs USING btree (queue, priority, run_at, id) WHERE (state = 'queued'::text);

CREATE INDEX jobs_expiry ON pgqueue.jobs USING btree (expires_at) WHERE ((expires_at IS NOT NULL) AND (state <> 'running'::text));

CREATE INDEX jobs_later ON pgqueue.jobs USING btree (run_at) WHERE (blocked_on = '@run_at'::text);

CREATE INDEX jobs_ordered ON pgqueue.jobs USING btree (order_name, scheduled_at, id) WHERE (order_name IS NOT NULL);

CREATE INDEX jobs_running ON pgqueue.jobs USING btree (worker_id) WHERE (state = 'running'::text);

CREATE INDEX jobs_tenant_waiting ON pgqueue.jobs USING btree (tenant) WHERE ((tenant IS NOT NULL) AND (state <> 'running'::text));

CREATE UNIQUE INDEX jobs_unique_key ON pgqueue.jobs USING btree (unique_key) WHERE (unique_key IS NOT NULL);

CREATE INDEX limit_starts_at ON pgqueue.limit_starts USING btree (name, at);

CREATE INDEX limits_declared ON pgqueue.limits USING btree (name) WHERE declared;

CREATE INDEX schedules_after ON pgqueue.schedules USING btree (after_id) WHERE (after_id IS NOT NULL);

CREATE INDEX schedules_cancelling ON pgqueue.schedules USING btree (id) WHERE (overlap = 'cancel-running'::text);

CREATE INDEX schedules_due ON pgqueue.schedules USING btree (next_run_at) WHERE enabled;

CREATE INDEX unique_keys_until ON pgqueue.unique_keys USING btree (until);

CREATE INDEX windows_backfill ON pgqueue.windows USING btree (backfill_id, window_start) WHERE ((backfill_id IS NOT NULL) AND (outcome IS NULL));

CREATE INDEX windows_held ON pgqueue.windows USING btree (schedule_id, window_start) WHERE (held AND (backfill_id IS NULL));

CREATE INDEX windows_job ON pgqueue.windows USING btree (job_id) WHERE (job_id IS NOT NULL);

CREATE INDEX windows_open ON pgqueue.windows USING btree (schedule_id, id) WHERE ((outcome IS NULL) AND (NOT held));

CREATE INDEX workflow_nodes_order ON pgqueue.workflow_nodes USING btree (workflow_id, job_id);

CREATE INDEX workflow_nodes_waiting ON pgqueue.workflow_nodes USING btree (waits_for, job_id) WHERE (waits_for IS NOT NULL);

CREATE INDEX workflows_finished ON pgqueue.workflows USING btree (finished_at) WHERE (finished_at IS NOT NULL);

ALTER INDEX pgqueue.finished_jobs_pkey ATTACH PARTITION pgqueue.finished_jobs_completed_pkey;

ALTER INDEX pgqueue.finished_jobs_pkey ATTACH PARTITION pgqueue.finished_jobs_failed_pkey;

CREATE TRIGGER jobs_tell_workflow AFTER DELETE ON pgqueue.jobs FOR EACH ROW WHEN ((old.workflow_id IS NOT NULL)) EXECUTE FUNCTION pgqueue.tell_workflow();

ALTER TABLE ONLY content.windows
    ADD CONSTRAINT content_windows_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.windows
    ADD CONSTRAINT content_windows_topic_fkey FOREIGN KEY (topic_id) REFERENCES content.topics(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.windows
    ADD CONSTRAINT content_windows_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.digests
    ADD CONSTRAINT digests_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.digests
    ADD CONSTRAINT digests_topic_fkey FOREIGN KEY (topic_id) REFERENCES content.topics(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.digests
    ADD CONSTRAINT digests_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.digests
    ADD CONSTRAINT digests_window_fkey FOREIGN KEY (window_id) REFERENCES content.windows(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.embeddings
    ADD CONSTRAINT embeddings_item_fkey FOREIGN KEY (item_id) REFERENCES content.items(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.embeddings
    ADD CONSTRAINT embeddings_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.embeddings
    ADD CONSTRAINT embeddings_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.item_vectors
    ADD CONSTRAINT item_vectors_embedding_fkey FOREIGN KEY (item_id, model) REFERENCES content.embeddings(item_id, model) ON DELETE CASCADE;

ALTER TABLE ONLY content.item_vectors
    ADD CONSTRAINT item_vectors_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.item_vectors
    ADD CONSTRAINT item_vectors_topic_fkey FOREIGN KEY (topic_id) REFERENCES content.topics(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.item_vectors
    ADD CONSTRAINT item_vectors_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_duplicate_fkey FOREIGN KEY (duplicate_of) REFERENCES content.items(id) ON DELETE SET NULL;

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_source_fkey FOREIGN KEY (source_id) REFERENCES content.sources(id) ON DELETE SET NULL;

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_topic_fkey FOREIGN KEY (topic_id) REFERENCES content.topics(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.items
    ADD CONSTRAINT items_window_fkey FOREIGN KEY (window_id) REFERENCES content.windows(id) ON DELETE SET NULL;

ALTER TABLE ONLY content.sources
    ADD CONSTRAINT sources_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.sources
    ADD CONSTRAINT sources_topic_fkey FOREIGN KEY (topic_id) REFERENCES content.topics(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.sources
    ADD CONSTRAINT sources_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.stories
    ADD CONSTRAINT stories_merged_fkey FOREIGN KEY (merged_into) REFERENCES content.stories(id) ON DELETE SET NULL;

ALTER TABLE ONLY content.stories
    ADD CONSTRAINT stories_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.stories
    ADD CONSTRAINT stories_topic_fkey FOREIGN KEY (topic_id) REFERENCES content.topics(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.stories
    ADD CONSTRAINT stories_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.story_items
    ADD CONSTRAINT story_items_item_fkey FOREIGN KEY (item_id) REFERENCES content.items(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.story_items
    ADD CONSTRAINT story_items_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.story_items
    ADD CONSTRAINT story_items_story_fkey FOREIGN KEY (story_id) REFERENCES content.stories(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.story_items
    ADD CONSTRAINT story_items_topic_fkey FOREIGN KEY (topic_id) REFERENCES content.topics(id) ON DELETE CASCADE;

ALTER TABLE ONLY content.story_items
    ADD CONSTRAINT story_items_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.topics
    ADD CONSTRAINT topics_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY content.topics
    ADD CONSTRAINT topics_user_fkey FOREIGN KEY (user_id) REFERENCES content.users(id);

ALTER TABLE ONLY content.users
    ADD CONSTRAINT users_org_fkey FOREIGN KEY (org_id) REFERENCES content.organizations(id);

ALTER TABLE ONLY pgqueue.backfills
    ADD CONSTRAINT backfills_schedule_fkey FOREIGN KEY (schedule_id) REFERENCES pgqueue.schedules(id) ON DELETE CASCADE;

ALTER TABLE ONLY pgqueue.schedules
    ADD CONSTRAINT schedules_after_fkey FOREIGN KEY (after_id) REFERENCES pgqueue.schedules(id) ON DELETE SET NULL;

ALTER TABLE ONLY pgqueue.windows
    ADD CONSTRAINT windows_backfill_fkey FOREIGN KEY (backfill_id) REFERENCES pgqueue.backfills(id) ON DELETE SET NULL;

ALTER TABLE ONLY pgqueue.windows
    ADD CONSTRAINT windows_schedule_fkey FOREIGN KEY (schedule_id) REFERENCES pgqueue.schedules(id) ON DELETE CASCADE;
