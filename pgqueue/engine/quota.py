"""How many jobs of a tenant may wait; held by `enqueue_v1`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.operate import Operator
from pgqueue.errors import ConfigError

Sql = Mapping[str, str]

LARGEST = 2**31 - 1


def set_quota(sql: Sql, tenant: str, max_waiting: int | None, operator: Operator) -> Steps[None]:
    """Set a tenant's quota, or with None take it away; raises ConfigError for one that is none."""
    params: dict[str, Any] = {"tenant": tenant, **operator.params}
    if max_waiting is None:
        yield Statement(sql["delete_quota"], params)
        return
    if type(max_waiting) is not int or not 0 <= max_waiting <= LARGEST:
        raise ConfigError(
            f"quota {max_waiting!r} of tenant {tenant!r} is not valid: a whole number from 0"
        )
    yield Statement(sql["put_quota"], {**params, "max_waiting": max_waiting})
