-- Stage 1: sources, their items, and which of them the window takes.

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
