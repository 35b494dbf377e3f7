-- Topics, their sources, and the digests that people read.

-- name: owner
select id as user_id, org_id
from content.users
where id = %(user_id)s

-- Adds a topic, or changes the one of that name.
-- name: put_topic
insert into content.topics (org_id, user_id, name, keywords, window_times, timezone, embedder)
values (
  %(org_id)s, %(user_id)s, %(name)s, %(keywords)s::text[], %(window_times)s::text[], %(timezone)s,
  %(embedder)s
)
on conflict (org_id, name) do update
set
  keywords = excluded.keywords,
  window_times = excluded.window_times,
  timezone = excluded.timezone,
  embedder = excluded.embedder
where topics.user_id = excluded.user_id
returning id, xmax = 0 as is_new

-- name: list_topics
select
  topics.id, topics.name, topics.timezone, topics.window_times, topics.keywords, topics.embedder,
  (
    select count(*)
    from content.sources
    where sources.topic_id = topics.id
  ) as sources,
  (
    select max(digests.window_end)
    from content.digests
    where digests.topic_id = topics.id
  ) as last_digest,
  schedules.next_run_at, schedules.enabled as scheduled
from content.topics
left join pgqueue.schedules on schedules.name = 'topic:' || topics.id::text
where topics.org_id = %(org_id)s
order by topics.id

-- By name or by number; a name that is a number comes first.
-- name: find_topic
select id, org_id, user_id, name, timezone
from content.topics
where org_id = %(org_id)s
  and (name = %(given)s or id::text = %(given)s)
order by name = %(given)s desc
limit 1

-- Sets the topic's schedule to a fire that is over, so that the next tick runs its window now.
-- name: set_schedule_back
update pgqueue.schedules
set next_run_at = %(next_run_at)s, enabled = true
where name = %(schedule)s

-- name: pause_schedule
update pgqueue.schedules
set enabled = false
where name = %(schedule)s

-- Adds a source, or changes the name of the one that is there; one that was disabled is asked
-- again.
-- name: put_source
insert into content.sources (
  org_id, user_id, topic_id, kind, name, url, canonical_url, file_root
)
values (
  %(org_id)s, %(user_id)s, %(topic_id)s, 'rss', %(name)s, %(url)s, %(canonical_url)s, %(file_root)s
)
on conflict (topic_id, kind, canonical_url) do update
set
  name = case when excluded.name <> '' then excluded.name else sources.name end,
  enabled = true,
  next_poll_at = case when sources.enabled then sources.next_poll_at end
returning id, xmax = 0 as is_new

-- name: list_sources
select
  sources.id, topics.name as topic, sources.name, sources.kind, sources.url, sources.health,
  sources.enabled, sources.failures, sources.last_error, sources.last_polled_at,
  sources.next_poll_at,
  (
    select count(*)
    from content.items
    where items.source_id = sources.id
  ) as items
from content.sources
join content.topics on topics.id = sources.topic_id
where sources.org_id = %(org_id)s
  and (%(topic_id)s::bigint is null or sources.topic_id = %(topic_id)s)
order by sources.topic_id, sources.id

-- name: list_digests
select
  digests.id, topics.name as topic, digests.window_start, digests.window_end, digests.mode,
  digests.title, (digests.body -> 'counts' ->> 'stories')::integer as stories,
  digests.body ->> 'reason' as reason, digests.rev, digests.created_at
from content.digests
join content.topics on topics.id = digests.topic_id
where digests.org_id = %(org_id)s
  and (%(topic_id)s::bigint is null or digests.topic_id = %(topic_id)s)
order by digests.window_end desc, digests.id desc
limit %(n)s

-- One digest: by id, or without one the newest.
-- name: get_digest
select
  digests.id, topics.name as topic, topics.timezone, digests.window_start, digests.window_end,
  digests.mode, digests.title, digests.rev, digests.created_at, digests.body, digests.text,
  digests.html
from content.digests
join content.topics on topics.id = digests.topic_id
where digests.org_id = %(org_id)s
  and (%(digest_id)s::bigint is null or digests.id = %(digest_id)s)
  and (%(topic_id)s::bigint is null or digests.topic_id = %(topic_id)s)
  and (%(window_end)s::timestamptz is null or digests.window_end = %(window_end)s)
order by digests.window_end desc, digests.id desc
limit 1

-- The job that the topic's schedule has for this window.
-- name: window_job
select window_status.state, window_status.job_id
from pgqueue.window_status
where schedule = %(schedule)s
  and window_end = %(window_end)s
order by id desc
limit 1

-- name: window_error
select error
from content.windows
where topic_id = %(topic_id)s
  and window_end = %(window_end)s
order by id desc
limit 1

-- name: now
select pgqueue.clock() as now
