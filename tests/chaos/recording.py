"""A record of all claims and ends of limited jobs, kept by the database."""

from __future__ import annotations

from proving import rows

_TABLE = (
    "create table public.record (at timestamptz not null, line bigserial, job_id bigint not null, "
    "name text not null, change integer not null)"
)

# Claims are stamped before they are committed, and ends, too: what follows an end is later.
_FUNCTION = """
create function public.record() returns trigger language plpgsql as $$
begin
  if old.state = 'running' and (tg_op = 'DELETE' or new.lease is distinct from old.lease) then
    insert into public.record (at, job_id, name, change)
    values (clock_timestamp(), old.id, old.limits[1], -1);
  end if;
  if tg_op = 'UPDATE' and new.state = 'running' and new.lease is distinct from old.lease then
    insert into public.record (at, job_id, name, change)
    values (clock_timestamp(), new.id, new.limits[1], 1);
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
