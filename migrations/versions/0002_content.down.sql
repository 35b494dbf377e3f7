-- The extension stays: others may use it.
drop function content.use_pgvector();
drop function content.floats(bytea);
drop table if exists content.item_vectors;
drop table content.digests;
drop table content.story_items;
drop table content.stories;
drop table content.embeddings;
drop table content.items;
drop table content.windows;
drop table content.sources;
drop table content.topics;
drop table content.users;
drop table content.organizations;

update pgqueue.schema_info
set version = 1;
