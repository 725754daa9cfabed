"""Requests per minute of one address."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

_MINUTE = 60.0
# Addresses that are remembered; those seen longest ago are forgotten first.
_MOST_ADDRESSES = 10_000


class Rates:
    """A bucket of tokens for each address: full at first, refilled evenly.

    A client may send a minute's worth at once, and then as many as are refilled.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        """Forgets everybody.

        Args:
          per_minute: requests; 0 for no limit.
          clock: seconds.
        """
        self._per_minute, self._clock = per_minute, clock
        # Address → tokens left, and when that was.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Counts a request.

        Returns:
          0 if it may pass; else the seconds until the next one may, and this one is not
          counted.
        """
        if not self._per_minute:
            return 0
        now = self._clock()
        tokens, before = self._buckets.pop(address, (float(self._per_minute), now))
        refilled = tokens + (now - before) * self._per_minute / _MINUTE
        tokens = min(float(self._per_minute), refilled)
        passes = tokens >= 1
        self._buckets[address] = (tokens - passes, now)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0 if passes else math.ceil((1 - tokens) * _MINUTE / self._per_minute)
