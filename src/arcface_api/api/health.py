"""Whether the service can embed, proved by embedding a picture, and whether it has to be replaced.

A thread that hangs can neither report it nor be ended. So the event loop watches the threads: when one hangs, everyone
who waits is answered, and the server of this app ends the process (`why_hung`). So it does if vectors stay wrong.
"""

import asyncio
import logging
import math
import time

from arcface_api.api.problems import is_internal, reported
from arcface_api.embedder import Embedder, SelfCheck

FRESH_SECONDS = 5.0
"""A successful inference of this age or younger, a caller's or our own, is proof enough."""
PROBE_SECONDS = 10.0
"""A probe that takes longer has failed."""
TICK_SECONDS = 1.0
"""The time between two checks of the threads."""

_log = logging.getLogger(__name__)


class Health:
    """Probes the embedder when asked, at most one probe at a time, and watches its threads."""

    def __init__(self, embedder: Embedder, *, hang_seconds: float, self_check: SelfCheck | None = None) -> None:
        """A decode or an inference that takes longer than `hang_seconds` hangs."""
        self._embedder, self._hang_seconds, self._self_check = embedder, hang_seconds, self_check
        self._probe: asyncio.Task[float] | None = None
        self.why_hung: str | None = None  # once set, it stays
        self.unfinished: str | None = None  # what still ran on a thread when the service was closed
        self.closes_before = math.inf  # on `time.monotonic`'s clock; the server sets it

    async def why_not(self) -> str | None:
        """Why the service cannot embed; None if it can."""
        drift = None if self._self_check is None else self._self_check.drift
        if why := self.why_hung or drift:
            return why
        is_failing = not math.isinf(self._embedder.failing_since)
        if not is_failing and time.monotonic() - self._embedder.last_success < FRESH_SECONDS:
            return None
        try:
            # Shielded: a caller that leaves, or gives up waiting, must not end the probe that others wait for.
            await asyncio.wait_for(asyncio.shield(self._running_probe()), PROBE_SECONDS)
        except TimeoutError:
            return f"embedding a picture takes longer than {PROBE_SECONDS:g} seconds"
        except Exception as error:  # noqa: BLE001  # whatever it is, the service is not ready
            if not is_internal(error):
                return str(error)
            return f"embedding a picture fails; the log says why, under the reference {reported(error)}"
        return None

    def _running_probe(self) -> asyncio.Task[float]:
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._embedder.probe())
            self._probe.add_done_callback(lambda probe: probe.cancelled() or probe.exception())  # nobody may wait
        return self._probe

    async def watch(self) -> None:
        """Check until a thread hangs, or the model has only failed for as long; then answer everyone who waits.

        A provider may fail for good, as CUDA does after an illegal access: only a new process can use the device again.
        From a failure on, our own pictures are embedded until one succeeds, so that few callers do not hide it.

        Only time in which this loop has run counts: a process that was paused finds everything late when it continues.
        """
        running_since = last = time.monotonic()
        while self.why_hung is None:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            if now - last > TICK_SECONDS + self._hang_seconds / 4:
                running_since = now
            last = now
            if self._self_check is not None and (drift := self._self_check.why_replace()):
                self._end(drift)
                break
            try:
                stuck = self._embedder.why_stuck(self._hang_seconds)
            except Exception:  # noqa: BLE001  # a defect must not end the watch
                _log.exception("A defect in looking for hangs:")
                continue
            is_late = now - running_since >= self._hang_seconds
            if stuck is not None and is_late:
                self._end(stuck)
            elif is_late and now - self._embedder.failing_since >= self._hang_seconds:
                self._end(f"every inference of the model recogniser has failed for {self._hang_seconds:g} s")
            elif not math.isinf(self._embedder.failing_since):
                self._running_probe()

    async def close(self, patience_seconds: float) -> None:
        """Close the embedder. Waits this long for its threads to end, or longer if `closes_before` allows it."""
        if self.why_hung is not None:
            patience_seconds = 0  # everybody has been answered, and the thread will not end
        elif not math.isinf(self.closes_before):
            patience_seconds = max(patience_seconds, self.closes_before - time.monotonic())
        try:
            await asyncio.wait_for(self._embedder.close(), patience_seconds)
        except TimeoutError:
            stuck = self._embedder.why_stuck(self._hang_seconds)
            if stuck is not None:
                self._end(stuck)
            else:
                self.unfinished = self._embedder.why_stuck(0) or "closing does not end"
                _log.warning("Ended without waiting longer: %s.", self.unfinished)

    def _end(self, why: str) -> None:
        """Record why the process has to be replaced (the first reason counts), and answer everyone who waits."""
        if self.why_hung is None:
            self.why_hung = why
            _log.critical("The service has to be replaced: %s.", why)
            self._embedder.give_up("The service does not respond and is being started again. Send the request again.")
