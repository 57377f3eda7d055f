"""Whether the service can embed: proved by embedding a picture, not by being reachable. And whether it hangs.

A thread that hangs cannot report it, so the event loop looks at the threads (`watch`). What hangs cannot be ended
either, only the process can: all who wait are answered, and the server of this app ends the process (`why_hung`).
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from arcface_api.embedder import Embedder
from arcface_api.errors import ArcFaceError

FRESH_SECONDS = 5.0
"""A successful inference of this age or younger, a caller's or our own, is proof enough."""
PROBE_SECONDS = 10.0
"""A probe that takes longer than this counts as failed."""
TICK_SECONDS = 1.0
"""Between two looks at the threads."""

_log = logging.getLogger(__name__)


class Health:
    """Probes the embedder when asked, at most one probe at a time, and watches its threads."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        hang_seconds: float,
        probe_seconds: float = PROBE_SECONDS,
        fresh_seconds: float = FRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is probed or watched yet.

        Args:
            embedder: What can embed, or not.
            hang_seconds: A decode or an inference that takes longer counts as hung.
            probe_seconds: A probe that takes longer counts as failed.
            fresh_seconds: For so long a success is proof enough.
            clock: In seconds; `time.monotonic`'s, by which the embedder counts.
        """
        self._embedder = embedder
        self._hang_seconds = hang_seconds
        self._probe_seconds = probe_seconds
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._probe: asyncio.Task[float] | None = None
        self.why_hung: str | None = None
        """What hangs; None: nothing. Never None again once it was not."""
        self.unfinished: str | None = None
        """What was still at work on a thread when the service was closed."""
        self.closes_before = math.inf
        """When closing has to be done, on `time.monotonic`'s clock; the server sets it."""

    async def why_not(self) -> str | None:
        """None when the service can embed, else the reason why it cannot."""
        if self.why_hung is not None:
            return self.why_hung
        if self._clock() - self._embedder.last_success < self._fresh_seconds:
            return None
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._embedder.probe())
        try:
            # Shielded: a caller that leaves, or gives up waiting, must not end the probe that others wait for.
            await asyncio.wait_for(asyncio.shield(self._probe), self._probe_seconds)
        except TimeoutError:
            return f"embedding a picture takes longer than {self._probe_seconds:g} seconds"
        except ArcFaceError as error:
            return str(error)
        except Exception:  # noqa: BLE001  # any defect: it is logged, and the service is not ready
            _log.exception("A defect in embedding a probe:")
            return "embedding a picture fails; the log says why"
        return None

    async def watch(self) -> None:
        """Look at the threads until one hangs; then answer all who wait.

        A process that was stopped for a while (a paused container) finds everything late when it goes on, so only time
        during which this loop has turned counts.
        """
        turning_since = last = self._clock()
        while self.why_hung is None:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock()
            if now - last > TICK_SECONDS + self._hang_seconds / 4:
                turning_since = now
            last = now
            stuck = self._embedder.why_stuck(now - self._hang_seconds)
            if stuck is not None and now - turning_since >= self._hang_seconds:
                self.hang(f"{stuck}: it began more than {self._hang_seconds:g} seconds ago")

    async def close(self, patience_seconds: float) -> None:
        """Close the embedder, in whose threads something may go on for callers that have their answers.

        Args:
            patience_seconds: How long to wait, where `closes_before` does not say more.
        """
        seconds = patience_seconds
        if not math.isinf(self.closes_before):
            seconds = max(seconds, self.closes_before - self._clock())
        try:
            await asyncio.wait_for(self._embedder.close(), seconds)
        except TimeoutError:
            now = self._clock()
            stuck = self._embedder.why_stuck(now - self._hang_seconds)
            if stuck is not None:
                self.hang(stuck)
            else:
                self.unfinished = self._embedder.why_stuck(now) or "closing does not end"
                _log.warning("Ended without waiting longer: %s.", self.unfinished)

    def hang(self, why: str) -> None:
        """Note that the process has to be replaced, and answer all who wait. The first reason counts."""
        if self.why_hung is not None:
            return
        self.why_hung = why
        _log.critical("The service hangs: %s.", why)
        self._embedder.give_up("The service does not respond and is being started again. Send the request again.")
