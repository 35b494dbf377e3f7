-- One run of the pipeline over a window: its row, its checkpoints, and what each stage reads and
-- writes.

-- The transaction's turn on a topic: its windows write stories and digests one after another.
-- name: lock_topic
select pg_advisory_xact_lock(hashtextextended('pgqueue topic ' || %(topic_id)s::text, 0))

-- name: read_topic
select id, org_id, user_id, name, keywords, timezone, embedder, revision
from content.topics
where id = %(topic_id)s

-- The window's row, made by the first run and found by every later one. A window of mode
-- since-last-run begins where the last digest of the topic ended.
-- name: open_window
insert into content.windows (
  org_id, user_id, topic_id, window_start, window_end, mode, items_since
)
select
  %(org_id)s, %(user_id)s, %(topic_id)s, %(window_start)s, %(window_end)s, %(mode)s,
  coalesce(
    (
      select max(digests.high_water_at)
      from content.digests
      where %(mode)s = 'since-last-run'
        and digests.topic_id = %(topic_id)s
        and digests.mode <> 'backfill'
        and digests.high_water_at <= %(window_end)s
    ),
    %(window_start)s
  )
on conflict (topic_id, window_start, window_end, mode) do update
set
  updated_at = pgqueue.clock_now(),
  error = case when windows.stage = 'digest' then windows.error end
returning id

-- name: read_window
select
  id, topic_id, window_start, window_end, mode, items_since, stage, model, counts, milliseconds,
  pgqueue.clock() as now
from content.windows
where id = %(window_id)s

-- Whether an earlier window of the topic is at work right now: one that failed, or that nobody has
-- touched for a while, is not waited for.
-- name: earlier_at_work
select exists (
  select
  from content.windows
  where topic_id = %(topic_id)s
    and id <> %(window_id)s
    and mode <> 'backfill'
    and (window_end, id) < (%(window_end)s, %(window_id)s)
    and stage <> 'digest'
    and error is null
    and updated_at > pgqueue.clock() - %(seconds)s * interval '1 second'
) as at_work

-- name: lock_window
select stage
from content.windows
where id = %(window_id)s
for update

-- Moves the window on: in the same transaction as the rows of the stage.
-- name: checkpoint
update content.windows
set
  stage = %(stage)s,
  model = coalesce(%(model)s, model),
  counts = counts || jsonb_build_object(%(stage)s::text, %(counts)s::jsonb),
  milliseconds = milliseconds || jsonb_build_object(%(stage)s::text, %(milliseconds)s::integer),
  error = null,
  updated_at = pgqueue.clock_now(),
  finished_at = case when %(stage)s = 'digest' then pgqueue.clock_now() end
where id = %(window_id)s

-- name: touch_window
update content.windows
set updated_at = pgqueue.clock_now()
where id = %(window_id)s

-- name: fail_window
update content.windows
set error = %(error)s, updated_at = pgqueue.clock_now()
where id = %(window_id)s
  and stage <> 'digest'

-- Ingest ----------------------------------------------------------------------------------------

-- The topic's feeds, those first that are due; the rest is counted.
-- name: list_polled_sources
select
  id, name, url, canonical_url, file_root, etag, last_modified, moved_to, moved_count, failures,
  next_poll_at is null or next_poll_at <= pgqueue.clock() as due
from content.sources
where topic_id = %(topic_id)s
  and kind in ('rss', 'youtube')
  and enabled
order by id

-- Inserts what is new of one source, in the feed's order.
-- name: insert_items
with inserted as (
  insert into content.items (
    org_id, user_id, topic_id, source_id, url, canonical_url, guid, title, author, published_at,
    first_seen_at, belongs_at, text, lang, content_hash, dedupe_key
  )
  select
    %(org_id)s, %(user_id)s, %(topic_id)s, %(source_id)s, url, canonical_url, guid, title, author,
    published_at, first_seen_at, belongs_at, text, lang, content_hash, dedupe_key
  from rows from (
    jsonb_to_recordset(%(items)s::jsonb) as (
      url text, canonical_url text, guid text, title text, author text, published_at timestamptz,
      first_seen_at timestamptz, belongs_at timestamptz, text text, lang text, content_hash text,
      dedupe_key text
    )
  ) with ordinality
  order by ordinality
  on conflict (topic_id, dedupe_key) do nothing
  returning id
)
select count(*) as new
from inserted

-- A source that answered. What the server sent to make the next request conditional is kept letter
-- by letter; a 304 without it keeps what we have.
-- name: source_answered
update content.sources
set
  etag = case when %(not_modified)s then coalesce(%(etag)s, etag) else %(etag)s end,
  last_modified = case
    when %(not_modified)s then coalesce(%(last_modified)s, last_modified)
    else %(last_modified)s
  end,
  moved_to = %(moved_to)s,
  moved_count = %(moved_count)s,
  failures = 0,
  health = 'healthy',
  last_error = null,
  last_polled_at = pgqueue.clock_now(),
  next_poll_at = pgqueue.clock_now() + %(wait)s * interval '1 second'
where id = %(source_id)s

-- A source that has moved for good; where the topic has the new address already, it stays as it is.
-- name: move_source
update content.sources
set url = %(url)s, canonical_url = %(canonical_url)s, moved_to = null, moved_count = 0
where id = %(source_id)s
  and not exists (
    select
    from content.sources as other
    where other.topic_id = sources.topic_id
      and other.kind = sources.kind
      and other.canonical_url = %(canonical_url)s
      and other.id <> sources.id
  )

-- name: source_failed
update content.sources
set
  failures = failures + 1,
  health = case
    when %(gone)s then 'gone'
    when failures + 1 >= 5 then 'unhealthy'
    else 'failing'
  end,
  enabled = enabled and not %(gone)s,
  last_error = %(error)s,
  last_polled_at = pgqueue.clock_now(),
  next_poll_at = pgqueue.clock_now() + %(wait)s * interval '1 second'
where id = %(source_id)s

-- Gives the window its items: those that belong to its span, and late ones, whose own window had
-- been read already. What belongs to no window that was run stays where it is: a window that is
-- run later may still take it.
-- name: claim_items
update content.items
set window_id = %(window_id)s, late = items.belongs_at < %(items_since)s
where topic_id = %(topic_id)s
  and window_id is null
  and belongs_at < %(window_end)s
  and (
    belongs_at >= %(items_since)s
    or (
      %(mode)s <> 'backfill'
      and exists (
        select
        from content.windows as own
        where own.topic_id = items.topic_id
          and own.items_since <= items.belongs_at
          and own.window_end > items.belongs_at
          and own.stage <> 'started'
      )
    )
  )

-- name: count_claimed
select count(*) as items, count(*) filter (where late) as late
from content.items
where window_id = %(window_id)s

-- name: count_sources
select
  count(*) filter (where enabled) as sources,
  count(*) filter (where enabled and failures > 0) as failing,
  count(*) filter (where not enabled) as disabled
from content.sources
where topic_id = %(topic_id)s

-- Embed -----------------------------------------------------------------------------------------

-- name: items_without_embedding
select id, title, text
from content.items
where window_id = %(window_id)s
  and not exists (
    select
    from content.embeddings
    where embeddings.item_id = items.id
      and embeddings.model = %(model)s
  )
order by id
limit %(n)s

-- name: insert_embeddings
insert into content.embeddings (item_id, model, org_id, user_id, dim, vec)
select item_id, %(model)s, %(org_id)s, %(user_id)s, %(dim)s, vec
from unnest(%(item_ids)s::bigint[], %(vectors)s::bytea[]) as rows (item_id, vec)
on conflict (item_id, model) do nothing

-- name: count_embedded
select count(*) as items, count(embeddings.item_id) as embedded
from content.items
left join content.embeddings
  on embeddings.item_id = items.id
  and embeddings.model = %(model)s
where items.window_id = %(window_id)s

-- Cluster ---------------------------------------------------------------------------------------

-- What is dated later than it was seen, or long before, is taken for what its window knows:
-- belongs_at, in the place of published_at.
-- name: items_without_story
select
  items.id, items.belongs_at as published_at, items.title, items.text, embeddings.vec,
  coalesce(items.canonical_url, '') as canonical_url, items.content_hash,
  coalesce(sources.name, '') as publisher
from content.items
join content.embeddings
  on embeddings.item_id = items.id
  and embeddings.model = %(model)s
left join content.sources on sources.id = items.source_id
where items.window_id = %(window_id)s
  and not exists (
    select
    from content.story_items
    where story_items.topic_id = items.topic_id
      and story_items.item_id = items.id
  )
order by items.belongs_at, items.id

-- name: active_stories
select
  id, title, status, centroid, item_count, copy_count, first_item_at, last_item_at
from content.stories
where topic_id = %(topic_id)s
  and model = %(model)s
  and status <> 'closed'
  and merged_into is null
order by id

-- Items of earlier windows in which copies are looked for.
-- name: known_items
select
  items.id, story_items.story_id, items.belongs_at as published_at, items.title, items.text,
  coalesce(items.canonical_url, '') as canonical_url, items.content_hash, items.duplicate_of
from content.items
join content.story_items
  on story_items.topic_id = items.topic_id
  and story_items.item_id = items.id
where items.topic_id = %(topic_id)s
  and items.belongs_at >= %(since)s
order by items.belongs_at, items.id

-- name: topic_revision
select revision
from content.topics
where id = %(topic_id)s

-- name: raise_revision
update content.topics
set revision = revision + 1
where id = %(topic_id)s

-- name: insert_story
insert into content.stories (
  org_id, user_id, topic_id, title, status, model, centroid, item_count, copy_count, first_item_at,
  last_item_at
)
values (
  %(org_id)s, %(user_id)s, %(topic_id)s, %(title)s, %(status)s, %(model)s, %(centroid)s,
  %(item_count)s, %(copy_count)s, %(first_item_at)s, %(last_item_at)s
)
returning id

-- name: change_story
update content.stories
set
  status = %(status)s,
  centroid = %(centroid)s,
  item_count = %(item_count)s,
  copy_count = %(copy_count)s,
  first_item_at = %(first_item_at)s,
  last_item_at = %(last_item_at)s
where id = %(id)s

-- name: insert_story_items
insert into content.story_items (story_id, item_id, topic_id, org_id, user_id, similarity)
select story_id, item_id, %(topic_id)s, %(org_id)s, %(user_id)s, similarity
from unnest(
  %(story_ids)s::bigint[],
  %(item_ids)s::bigint[],
  %(similarities)s::real[]
) as rows (story_id, item_id, similarity)

-- name: mark_duplicates
update content.items
set duplicate_of = rows.original
from unnest(%(item_ids)s::bigint[], %(originals)s::bigint[]) as rows (item_id, original)
where items.id = rows.item_id

-- name: move_story_items
update content.story_items
set story_id = %(winner)s
where story_id = %(loser)s

-- name: merge_story
update content.stories
set merged_into = %(winner)s
where id = %(loser)s
   or merged_into = %(loser)s

-- Digest ----------------------------------------------------------------------------------------

-- All items of every story that this window added to, the copies and the earlier ones, too.
-- `is_old` are items of windows whose digests are older than those that are read in full.
-- name: stories_of_window
select
  stories.id as story_id, stories.centroid, stories.status,
  items.id, items.title, coalesce(items.url, '') as url, coalesce(sources.name, '') as publisher,
  items.belongs_at as published_at, items.text, coalesce(items.lang, 'en') as lang,
  items.duplicate_of, embeddings.vec,
  coalesce(windows.window_end < %(oldest_past)s::timestamptz, false) as is_old
from content.stories
join content.story_items on story_items.story_id = stories.id
join content.items on items.id = story_items.item_id
join content.embeddings
  on embeddings.item_id = items.id
  and embeddings.model = stories.model
left join content.sources on sources.id = items.source_id
left join content.windows on windows.id = items.window_id
where stories.topic_id = %(topic_id)s
  and stories.model = %(model)s
  and stories.merged_into is null
  and (items.belongs_at < %(window_end)s or items.window_id = %(window_id)s)
  and stories.id in (
    select touched.story_id
    from content.story_items as touched
    join content.items as new on new.id = touched.item_id
    where touched.topic_id = %(topic_id)s
      and new.window_id = %(window_id)s
  )
order by stories.id, items.belongs_at, items.id

-- name: past_digests
select body, window_end
from content.digests
where topic_id = %(topic_id)s
  and window_id <> %(window_id)s
  and window_end <= %(window_end)s
order by window_end desc, id desc
limit %(n)s

-- name: insert_digest
insert into content.digests (
  org_id, user_id, topic_id, window_id, window_start, window_end, mode, title, body, text, html,
  high_water_at
)
values (
  %(org_id)s, %(user_id)s, %(topic_id)s, %(window_id)s, %(window_start)s, %(window_end)s, %(mode)s,
  %(title)s, %(body)s::jsonb, %(text)s, %(html)s, %(window_end)s
)
on conflict (topic_id, window_start, window_end, mode) do nothing

-- name: score_stories
update content.stories
set score = rows.score
from unnest(%(story_ids)s::bigint[], %(scores)s::double precision[]) as rows (story_id, score)
where stories.id = rows.story_id
