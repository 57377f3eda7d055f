"""Limits how many pictures one caller may send in a time. Counts are in the memory of each worker."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem, parse_many
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import Scope

from arcface_api.api.auth import KEY_NAME
from arcface_api.api.connections import site_of
from arcface_api.api.published import Proxies, networks
from arcface_api.errors import RateLimited, TooManyFiles
from arcface_api.wording import counted

MOST_CALLERS = 65_536
"""Callers whose pictures are counted at once; a further one takes the place of the one that began first."""


class _Windows(Storage):
    """The counts of one limit: how many of each caller, and until when.

    Not the library's own storage in memory, which keeps every address, looks at all of them a hundred times a second,
    and goes by the clock that an operator can set.
    """

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._windows: OrderedDict[str, list[float]] = OrderedDict()  # count and end; the one that ends first is first

    @property
    def base_exceptions(self) -> type[Exception]:
        return ArithmeticError  # this storage raises none

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now, windows = time.monotonic(), self._windows
        while windows and next(iter(windows.values()))[1] <= now:
            windows.popitem(last=False)
        if key not in windows:
            if len(windows) >= MOST_CALLERS:
                windows.popitem(last=False)
            windows[key] = [0, now + expiry]
        windows[key][0] += amount
        return int(windows[key][0])

    def get(self, key: str) -> int:
        count, end = self._windows.get(key, (0, 0.0))
        return int(count) if end > time.monotonic() else 0

    def get_expiry(self, key: str) -> float:
        return self._windows[key][1] if key in self._windows else time.monotonic()

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        number = len(self._windows)
        self._windows.clear()
        return number

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)


@dataclass(frozen=True)
class _Limit:
    item: RateLimitItem
    counts: FixedWindowRateLimiter
    text: str


class RateLimits:
    """The limits of all callers in one worker. Belongs to the event loop."""

    def __init__(self, limits: str, workers: int, exempt: Iterable[str], proxies: Proxies) -> None:
        """`limits` as the setting has them, of which each worker gets its share."""
        self._limits = []
        for whole in parse_many(limits):
            item = type(whole)(max(1, whole.amount // workers), whole.multiples)
            period = f"{item.multiples} {item.GRANULARITY.name}s" if item.multiples > 1 else item.GRANULARITY.name
            text = f"{counted(item.amount, 'picture')} per {period}{' and worker' if workers > 1 else ''}"
            self._limits.append(_Limit(item, FixedWindowRateLimiter(_Windows()), text))
        self._least = min(self._limits, key=lambda limit: limit.item.amount)
        self._exempt, self._proxies = networks(exempt), proxies
        self._site = lru_cache(MOST_CALLERS // 16)(self._find_site)

    def count(self, scope: Scope, pictures: int = 1, counted_before: int = 0) -> None:
        """Count the pictures of a request, of which some have been counted before.

        Raises:
            RateLimited: The caller may not send so many now; they are not counted.
            TooManyFiles: It may never send so many at once.
        """
        site = self._site(self._proxies.caller(scope))
        if site is None:
            return
        if pictures > self._least.item.amount:
            raise TooManyFiles(
                f"The request has {counted(pictures, 'picture')}, and the limit for one caller is {self._least.text}."
                f" Send at most {self._least.item.amount} at once."
            )
        name = scope.get(KEY_NAME)
        caller, more = site if name is None else f"key {name}", pictures - counted_before
        late = [limit for limit in self._limits if not limit.counts.test(limit.item, caller, cost=more)]
        if late:
            ends = {limit.counts.get_window_stats(limit.item, caller).reset_time: limit for limit in late}
            end = max(ends)
            raise RateLimited(ends[end].text, max(1, math.ceil(end - time.monotonic())))
        for limit in self._limits:
            limit.counts.hit(limit.item, caller, cost=more)

    def _find_site(self, address: str) -> str | None:
        """By what a caller at this address is counted without a key; None: it is not limited."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:  # a socket of this machine, or what a proxy made up
            return address
        if any(parsed in network for network in self._exempt):
            return None
        return site_of(address)
