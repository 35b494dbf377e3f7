"""What a handler raises, or returns, to speak about its own job; the tree stands in errors.py."""

from __future__ import annotations


class Verdict(Exception):
    """Base of what a handler raises or returns to speak about its own job."""


class RetryAfter(Verdict):
    """Try again after `seconds`; counts as an attempt. Raises TypeError if they are no number."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        self.seconds = _checked_seconds("RetryAfter", seconds)
        self.reason = reason
        super().__init__(reason or f"retry after {seconds:g} s")


class Snooze(Verdict):
    """Try again after `seconds`; counts as nothing. Raises TypeError if they are no number."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        self.seconds = _checked_seconds("Snooze", seconds)
        self.reason = reason
        super().__init__(reason or f"snoozed for {seconds:g} s")


class Cancel(Verdict):
    """Stop here; the job ends as cancelled."""

    def __init__(self, reason: str = "cancelled by its handler") -> None:
        self.reason = reason
        super().__init__(reason)


class Fail(Verdict):
    """Stop here; the job ends as failed, without another attempt."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Parked(BaseException):
    """Leaves a handler that sleeps or waits: its job is put back for `seconds`, and costs no try.

    Not an Exception, so that no `except Exception` keeps it. `waits` names its waits for events.
    """

    def __init__(self, seconds: float, waits: tuple[str, ...] = ()) -> None:
        self.seconds = seconds
        self.waits = waits
        super().__init__(f"the handler is left for {seconds:g} s")


def _checked_seconds(name: str, seconds: float) -> float:
    if not isinstance(seconds, int | float):
        raise TypeError(f"{name}({seconds!r}) is not valid: seconds, as a number")
    return seconds
