-- Stage 4: what a digest is written from, and the digest itself.

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
