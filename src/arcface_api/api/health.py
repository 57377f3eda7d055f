"""Whether the service can embed: proved by a real inference, not by being reachable."""

import asyncio
import time
from collections.abc import Callable

from arcface_api.embedder import Embedder
from arcface_api.errors import ArcFaceError

FRESH_SECONDS = 5.0
"""A successful inference of this age or younger, a caller's or our own, is proof enough."""
PROBE_SECONDS = 10.0
"""A probe that takes longer than this counts as failed."""


class Health:
    """Probes the embedder when asked, at most one probe at a time."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        probe_seconds: float = PROBE_SECONDS,
        fresh_seconds: float = FRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is probed yet."""
        self._embedder = embedder
        self._probe_seconds = probe_seconds
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._probe: asyncio.Task[float] | None = None

    async def why_not(self) -> str | None:
        """None when the service can embed, else the reason why it cannot."""
        if self._clock() - self._embedder.last_success < self._fresh_seconds:
            return None
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._embedder.probe())
        try:
            # Shielded: a caller that leaves, or gives up waiting, must not end the probe that others wait for.
            await asyncio.wait_for(asyncio.shield(self._probe), self._probe_seconds)
        except TimeoutError:
            return f"an inference takes longer than {self._probe_seconds:g} seconds"
        except ArcFaceError as error:
            return str(error)
        return None
