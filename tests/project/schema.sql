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

CREATE FUNCTION pgqueue.clock() RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$select statement_timestamp()$$;

CREATE FUNCTION pgqueue.clock_now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$select clock_timestamp()$$;

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
    CONSTRAINT jobs_attempt CHECK (((attempt >= 0) AND (max_attempts >= 1))),
    CONSTRAINT jobs_blocked_names_its_limit CHECK (((state = 'blocked'::text) = (blocked_on IS NOT NULL))),
    CONSTRAINT jobs_live_state CHECK ((state = ANY (ARRAY['queued'::text, 'blocked'::text, 'waiting'::text, 'running'::text]))),
    CONSTRAINT jobs_payload CHECK ((jsonb_typeof(payload) = 'object'::text)),
    CONSTRAINT jobs_priority CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT jobs_queue CHECK ((queue ~ '^[A-Za-z0-9_.:-]{1,100}$'::text)),
    CONSTRAINT jobs_running_is_held CHECK ((((state = 'running'::text) = (lease IS NOT NULL)) AND ((state = 'running'::text) = (worker_id IS NOT NULL)) AND ((state <> 'running'::text) OR (started_at IS NOT NULL)))),
    CONSTRAINT jobs_task CHECK (((length(task) >= 1) AND (length(task) <= 200))),
    CONSTRAINT jobs_timeout CHECK (((timeout > (0)::double precision) AND (timeout < 'Infinity'::double precision))),
    CONSTRAINT jobs_times CHECK ((isfinite(run_at) AND isfinite(scheduled_at) AND isfinite(created_at)))
)
WITH (fillfactor='85', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_limit='2000', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='5000');

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
    NULL::jsonb AS result
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
    finished_jobs.result
   FROM pgqueue.finished_jobs;

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
    CONSTRAINT finished_jobs_final_state CHECK ((state = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (finished_at);

ALTER TABLE pgqueue.jobs ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.jobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.queues (
    name text NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
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
    (pgqueue.clock() - min(live.run_at) FILTER (WHERE (live.status = 'queued'::text))) AS oldest_due
   FROM (( SELECT jobs.queue,
            jobs.run_at,
                CASE
                    WHEN ((jobs.state <> 'queued'::text) OR (jobs.run_at <= pgqueue.clock())) THEN jobs.state
                    WHEN (jobs.attempt > 0) THEN 'retrying'::text
                    ELSE 'scheduled'::text
                END AS status
           FROM pgqueue.jobs) live
     FULL JOIN ( SELECT queues.name AS queue,
            queues.paused
           FROM pgqueue.queues) settings USING (queue))
  GROUP BY queue, settings.paused;

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
    CONSTRAINT schedules_catch_up CHECK ((catch_up = ANY (ARRAY['all'::text, 'latest'::text, 'none'::text]))),
    CONSTRAINT schedules_delay CHECK (((delay >= (0)::double precision) AND (delay < 'Infinity'::double precision))),
    CONSTRAINT schedules_failing_says_why CHECK (((failures > 0) = (last_error IS NOT NULL))),
    CONSTRAINT schedules_max_attempts CHECK ((max_attempts >= 1)),
    CONSTRAINT schedules_name CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT schedules_overlap CHECK ((overlap = ANY (ARRAY['queue'::text, 'skip'::text, 'cancel-running'::text, 'allow'::text]))),
    CONSTRAINT schedules_payload CHECK ((jsonb_typeof(payload) = 'object'::text)),
    CONSTRAINT schedules_queue CHECK ((queue ~ '^[A-Za-z0-9_.:-]{1,100}$'::text)),
    CONSTRAINT schedules_times CHECK (isfinite(next_run_at))
);

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

CREATE TABLE pgqueue.windows (
    id bigint NOT NULL,
    schedule_id bigint NOT NULL,
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    mode text DEFAULT 'window'::text NOT NULL,
    job_id bigint,
    run integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT pgqueue.clock_now() NOT NULL,
    CONSTRAINT windows_mode CHECK ((mode = ANY (ARRAY['window'::text, 'catchup'::text, 'since-last-run'::text, 'backfill'::text]))),
    CONSTRAINT windows_run CHECK ((run >= 1)),
    CONSTRAINT windows_span CHECK ((window_start < window_end))
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
    COALESCE(live.state, ended.state, 'lost'::text) AS state,
    COALESCE(live.attempt, ended.attempt) AS attempt,
    COALESCE(live.started_at, ended.started_at) AS started_at,
    ended.finished_at
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

ALTER TABLE ONLY pgqueue.finished_jobs
    ADD CONSTRAINT finished_jobs_pkey PRIMARY KEY (id, finished_at, state);

ALTER TABLE ONLY pgqueue.finished_jobs_completed
    ADD CONSTRAINT finished_jobs_completed_pkey PRIMARY KEY (id, finished_at, state);

ALTER TABLE ONLY pgqueue.finished_jobs_failed
    ADD CONSTRAINT finished_jobs_failed_pkey PRIMARY KEY (id, finished_at, state);

ALTER TABLE ONLY pgqueue.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pgqueue.schedules
    ADD CONSTRAINT schedules_name_key UNIQUE (name);

ALTER TABLE ONLY pgqueue.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.schema_info
    ADD CONSTRAINT schema_info_pkey PRIMARY KEY (one);

ALTER TABLE ONLY pgqueue.windows
    ADD CONSTRAINT windows_once UNIQUE (schedule_id, window_start, mode);

ALTER TABLE ONLY pgqueue.windows
    ADD CONSTRAINT windows_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

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

CREATE INDEX jobs_claim ON pgqueue.jobs USING btree (queue, priority, run_at, id) WHERE (state = 'queued'::text);

CREATE INDEX jobs_running ON pgqueue.jobs USING btree (worker_id) WHERE (state = 'running'::text);

CREATE UNIQUE INDEX jobs_unique_key ON pgqueue.jobs USING btree (unique_key) WHERE (unique_key IS NOT NULL);

CREATE INDEX schedules_due ON pgqueue.schedules USING btree (next_run_at) WHERE enabled;

ALTER INDEX pgqueue.finished_jobs_pkey ATTACH PARTITION pgqueue.finished_jobs_completed_pkey;

ALTER INDEX pgqueue.finished_jobs_pkey ATTACH PARTITION pgqueue.finished_jobs_failed_pkey;

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

ALTER TABLE ONLY pgqueue.windows
    ADD CONSTRAINT windows_schedule_fkey FOREIGN KEY (schedule_id) REFERENCES pgqueue.schedules(id) ON DELETE CASCADE;
