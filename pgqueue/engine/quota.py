"""How many jobs of a tenant may wait; held by `enqueue_v1`."""

from __future__ import annotations

from collections.abc import Mapping

from pgqueue.db.run import Statement, Steps
from pgqueue.errors import ConfigError

Sql = Mapping[str, str]


def set_quota(sql: Sql, tenant: str, max_waiting: int | None) -> Steps[None]:
    """Set a tenant's quota, or with None take it away; raises ConfigError for a negative one."""
    if max_waiting is None:
        yield Statement(sql["delete_quota"], {"tenant": tenant})
        return
    if max_waiting < 0:
        raise ConfigError(f"quota {max_waiting} of tenant {tenant!r} is not valid: 0 or more")
    yield Statement(sql["put_quota"], {"tenant": tenant, "max_waiting": max_waiting})
