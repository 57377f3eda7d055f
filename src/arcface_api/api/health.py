"""Whether the service can embed, proved by embedding a picture, and whether one of its threads hangs.

A thread that hangs can neither report it nor be ended. So the event loop watches the threads: when one hangs, everyone
who waits is answered, and the server of this app ends the process (`why_hung`).
"""

import asyncio
import logging
import math
import time

from arcface_api.embedder import Embedder
from arcface_api.errors import ArcFaceError

FRESH_SECONDS = 5.0
"""A successful inference of this age or younger, a caller's or our own, is proof enough."""
PROBE_SECONDS = 10.0
"""A probe that takes longer has failed."""
TICK_SECONDS = 1.0
"""The time between two checks of the threads."""

_log = logging.getLogger(__name__)


class Health:
    """Probes the embedder when asked, at most one probe at a time, and watches its threads."""

    def __init__(self, embedder: Embedder, *, hang_seconds: float) -> None:
        """A decode or an inference that takes longer than `hang_seconds` hangs."""
        self._embedder, self._hang_seconds = embedder, hang_seconds
        self._probe: asyncio.Task[float] | None = None
        self.why_hung: str | None = None  # once set, it stays
        self.unfinished: str | None = None  # what still ran on a thread when the service was closed
        self.closes_before = math.inf  # on `time.monotonic`'s clock; the server sets it

    async def why_not(self) -> str | None:
        """Why the service cannot embed; None if it can."""
        if self.why_hung is not None:
            return self.why_hung
        if time.monotonic() - self._embedder.last_success < FRESH_SECONDS:
            return None
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._embedder.probe())
        try:
            # Shielded: a caller that leaves, or gives up waiting, must not end the probe that others wait for.
            await asyncio.wait_for(asyncio.shield(self._probe), PROBE_SECONDS)
        except TimeoutError:
            return f"embedding a picture takes longer than {PROBE_SECONDS:g} seconds"
        except ArcFaceError as error:
            return str(error)
        except Exception:  # noqa: BLE001  # any defect: it is logged, and the service is not ready
            _log.exception("A defect in embedding a probe:")
            return "embedding a picture fails; the log says why"
        return None

    async def watch(self) -> None:
        """Check the threads until one hangs, then answer everyone who waits.

        Only time in which this loop has run counts: a process that was paused finds everything late when it continues.
        """
        running_since = last = time.monotonic()
        while self.why_hung is None:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            if now - last > TICK_SECONDS + self._hang_seconds / 4:
                running_since = now
            last = now
            try:
                stuck = self._embedder.why_stuck(self._hang_seconds)
            except Exception:  # noqa: BLE001  # a defect must not end the watch
                _log.exception("A defect in looking for hangs:")
                continue
            if stuck is not None and now - running_since >= self._hang_seconds:
                self._hang(stuck)

    async def close(self, patience_seconds: float) -> None:
        """Close the embedder. Waits this long for its threads to end, or longer if `closes_before` allows it."""
        if not math.isinf(self.closes_before):
            patience_seconds = max(patience_seconds, self.closes_before - time.monotonic())
        try:
            await asyncio.wait_for(self._embedder.close(), patience_seconds)
        except TimeoutError:
            stuck = self._embedder.why_stuck(self._hang_seconds)
            if stuck is not None:
                self._hang(stuck)
            else:
                self.unfinished = self._embedder.why_stuck(0) or "closing does not end"
                _log.warning("Ended without waiting longer: %s.", self.unfinished)

    def _hang(self, why: str) -> None:
        """Record why the process has to be replaced (the first reason counts), and answer everyone who waits."""
        if self.why_hung is None:
            self.why_hung = why
            _log.critical("The service hangs: %s.", why)
            self._embedder.give_up("The service does not respond and is being started again. Send the request again.")
