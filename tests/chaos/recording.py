"""A record of all claims and ends of limited jobs, kept by the database."""

from __future__ import annotations

from proving import rows

_TABLE = (
    "create table public.record (at timestamptz not null, line bigserial, job_id bigint not null, "
    "name text not null, change integer not null)"
)

# Ends are stamped before they are committed: what follows an end is later. A claim has the time
# that its row says: that of the trigger came up to 5 ms after it on a busy machine, more for some
# than for others, which made eleven starts in a second of ten.
_FUNCTION = """
create function public.record() returns trigger language plpgsql as $$
begin
  if old.state = 'running' and (tg_op = 'DELETE' or new.lease is distinct from old.lease) then
    insert into public.record (at, job_id, name, change)
    values (clock_timestamp(), old.id, old.limits[1], -1);
  end if;
  if tg_op = 'UPDATE' and new.state = 'running' and new.lease is distinct from old.lease then
    insert into public.record (at, job_id, name, change)
    values (new.started_at, new.id, new.limits[1], 1);
  end if;
  return coalesce(new, old);
end $$
"""

_TRIGGER = (
    "create trigger record before update or delete on pgqueue.jobs "
    "for each row execute function public.record()"
)


def record(url: str) -> None:
    """Keep the table public.record from now on: `change` is 1 for a claim, -1 for its end."""
    for statement in (_TABLE, _FUNCTION, _TRIGGER):
        rows(url, statement)
