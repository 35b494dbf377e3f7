"""Decide from values alone how a try that failed goes on."""

from __future__ import annotations

from collections.abc import Callable

from pgqueue.job import Retry


def wait_or_end(
    policy: Retry, attempt: int, error: BaseException, rand: Callable[[], float]
) -> float | None:
    """Seconds to wait after failed try number `attempt`; None when this error ends the job."""
    if policy.decide is not None:
        wait = policy.decide(attempt, error)
        return None if wait is None else max(0.0, float(wait))
    if isinstance(error, policy.never) or not isinstance(error, policy.only):
        return None
    return wait_after(policy, attempt, rand)


def wait_after(policy: Retry, attempt: int, rand: Callable[[], float]) -> float:
    """Seconds to wait after failed try number `attempt` (1 is the first).

    Exponential with proportional jitter, as in the AWS Architecture Blog's "Exponential Backoff
    and Jitter"; `rand` gives a number in [0, 1).
    """
    if policy.delays is not None:
        return float(policy.delays[min(attempt, len(policy.delays)) - 1])
    # Past 2**60 the cap has long been reached, and a float would overflow.
    wait = min(policy.cap, policy.base * policy.factor ** min(attempt - 1, 60))
    return wait * (1 + policy.jitter * rand())
