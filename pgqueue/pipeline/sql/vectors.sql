-- Which stories are near to a text. `content.item_vectors` is there only where pgvector is: see
-- content.use_pgvector() in the migration.

-- One row, with the schema that pgvector lives in, where the table can be used.
-- name: pgvector_schema
select pg_namespace.nspname as schema_name
from pg_attribute
join pg_type on pg_type.oid = pg_attribute.atttypid
join pg_namespace on pg_namespace.oid = pg_type.typnamespace
where pg_attribute.attrelid = to_regclass('content.item_vectors')
  and pg_attribute.attname = 'vec'
  and not pg_attribute.attisdropped

-- name: fill_item_vectors
insert into content.item_vectors (item_id, model, topic_id, org_id, user_id, vec)
select
  embeddings.item_id, embeddings.model, items.topic_id, embeddings.org_id, embeddings.user_id,
  content.floats(embeddings.vec)
from content.embeddings
join content.items on items.id = embeddings.item_id
where embeddings.item_id = any(%(item_ids)s::bigint[])
  and embeddings.model = %(model)s
on conflict (item_id, model) do nothing

-- Until the transaction ends: names of pgvector are found, and an indexed search goes on until the
-- topic's items are found, instead of ending with the first `ef_search` of all topics.
-- name: aim_pgvector
select
  set_config('search_path', quote_ident(%(schema_name)s::text), true),
  set_config('hnsw.ef_search', %(ef_search)s::text, true),
  set_config('hnsw.iterative_scan', 'strict_order', true)

-- The index is on a vector of fixed length, and that cannot be a parameter: one statement for each.
-- name: nearest_2048
select story_items.story_id, embeddings.vec
from (
  select item_id, topic_id
  from content.item_vectors
  where model = %(model)s
    and topic_id = any(%(topic_ids)s::bigint[])
  order by vec::halfvec(2048) <=> %(wanted)s::real[]::halfvec(2048)
  limit %(n)s
) as nearest
join content.embeddings
  on embeddings.item_id = nearest.item_id
  and embeddings.model = %(model)s
join content.story_items
  on story_items.topic_id = nearest.topic_id
  and story_items.item_id = nearest.item_id

-- name: nearest_512
select story_items.story_id, embeddings.vec
from (
  select item_id, topic_id
  from content.item_vectors
  where model = %(model)s
    and topic_id = any(%(topic_ids)s::bigint[])
  order by vec::halfvec(512) <=> %(wanted)s::real[]::halfvec(512)
  limit %(n)s
) as nearest
join content.embeddings
  on embeddings.item_id = nearest.item_id
  and embeddings.model = %(model)s
join content.story_items
  on story_items.topic_id = nearest.topic_id
  and story_items.item_id = nearest.item_id

-- name: nearest_256
select story_items.story_id, embeddings.vec
from (
  select item_id, topic_id
  from content.item_vectors
  where model = %(model)s
    and topic_id = any(%(topic_ids)s::bigint[])
  order by vec::halfvec(256) <=> %(wanted)s::real[]::halfvec(256)
  limit %(n)s
) as nearest
join content.embeddings
  on embeddings.item_id = nearest.item_id
  and embeddings.model = %(model)s
join content.story_items
  on story_items.topic_id = nearest.topic_id
  and story_items.item_id = nearest.item_id

-- name: all_vectors
select story_items.story_id, embeddings.vec
from content.story_items
join content.embeddings
  on embeddings.item_id = story_items.item_id
  and embeddings.model = %(model)s
where story_items.topic_id = any(%(topic_ids)s::bigint[])

-- Those with these ids, or the newest; a merged story is its winner's.
-- name: list_stories
select
  stories.id, topics.name as topic, stories.title, stories.status, stories.item_count,
  stories.copy_count, stories.first_item_at, stories.last_item_at
from content.stories
join content.topics on topics.id = stories.topic_id
where stories.org_id = %(org_id)s
  and stories.merged_into is null
  and (%(topic_id)s::bigint is null or stories.topic_id = %(topic_id)s)
  and (%(ids)s::bigint[] is null or stories.id = any(%(ids)s))
order by stories.last_item_at desc, stories.id desc
limit %(n)s
