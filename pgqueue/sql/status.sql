-- Questions about who lives and what waits; they change nothing.

-- The workers of one host whose last beat is younger than `timeout` seconds.
-- name: find_live_workers
select id, pid
from pgqueue.workers
where host = %(host)s
  and heartbeat_at > pgqueue.clock() - %(timeout)s * interval '1 second'
order by id
