-- Stages 2 and 3: vectors, and the stories that items become.

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
