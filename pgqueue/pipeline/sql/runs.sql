-- One run of the pipeline over a window: its row, its turn, its checkpoints.

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
