"""One of several processes on the same port, as its parent sees it (`Worker`) and from inside (`_work`).

    Worker() ──spawns──▶ _work ──▶ server.run
      opened ◀──report, once──┤     None: callers get in; an ArcFaceError: why they cannot
      ended  ◀──signs of life─┤     a byte each second; if none comes, the worker is killed
             ◀──exit status───┘

The parent stops a worker with SIGTERM. The worker stops itself when the parent is gone, however that ended.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from arcface_api.api.metrics import SharedMetrics
from arcface_api.errors import ArcFaceError, WorkerEnded
from arcface_api.packs import InstalledPack
from arcface_api.serving import metrics_folder, port
from arcface_api.serving.logs import log_to_stderr
from arcface_api.serving.process import HUNG_STATUS, refusal
from arcface_api.settings import Settings

HUNG_SECONDS = 10
"""A worker that still runs this long after the grace period is killed, by its parent or else by itself."""
LATE_SECONDS = 2
"""A timer that is this late runs in a process that was stopped meanwhile."""

_log = logging.getLogger(__name__)

_SPAWN = multiprocessing.get_context("spawn")
"""Not fork: ONNX Runtime's and CUDA's threads do not survive it."""


class Worker:
    """A worker process, as its parent sees it. Belongs to one event loop."""

    _silence: asyncio.TimerHandle  # set once the worker is watched

    def __init__(
        self, pack: InstalledPack, settings: Settings, address: port.Address, metrics: SharedMetrics | None
    ) -> None:
        """Start the process; `address` is what `port.share` returned."""
        self.metrics = metrics
        self._hang_seconds = settings.hang_seconds
        self._has_opened = self._was_silent = False
        self._report, report = _SPAWN.Pipe(duplex=False)
        # As a daemon, multiprocessing stops it if the parent ends by a defect.
        self.process = _SPAWN.Process(target=_work, args=(pack, settings, address, metrics, report), daemon=True)
        # It must not get SIGINT: Ctrl-C reaches every process of a terminal, and the parent decides.
        resource_tracker.ensure_running()  # the first start of a process would start it, which unblocks SIGINT
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        report.close()  # else this process would not see it close when the worker dies

    @property
    def has_hung(self) -> bool:
        """Whether it ended because it hung, which is noticed after `hang_seconds`."""
        return self._was_silent or self.process.exitcode == HUNG_STATUS

    async def opened(self) -> None:
        """Wait until callers get in. Raises what the worker raised, or `WorkerEnded` if it ended without a report."""
        await _readable(self._report.fileno())
        try:
            error: ArcFaceError | None = self._report.recv()
        except EOFError:
            how_it_ended, advice = await self.ended(), "The log above says why."
            if how_it_ended.endswith("SIGKILL"):
                advice = "The kernel does this when memory runs out: give the service more memory or set fewer workers."
            raise WorkerEnded(f"Worker {self.process.pid} {how_it_ended} before it could serve. {advice}") from None
        if error is not None:
            raise error
        self._has_opened = True

    async def ended(self) -> str:
        """Wait until the process is gone, and say how it ended. It is killed if it shows no life for `hang_seconds`."""
        loop = asyncio.get_running_loop()
        if is_watched := self._has_opened and not self._report.closed:
            self._await_life()
            loop.add_reader(self._report.fileno(), self._on_life)
        try:
            await _readable(self.process.sentinel)
        finally:
            if is_watched:
                loop.remove_reader(self._report.fileno())
                self._silence.cancel()
        self.process.join()
        self._report.close()
        status = self.process.exitcode or 0
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    def _await_life(self) -> None:
        self._silence = asyncio.get_running_loop().call_later(self._hang_seconds, self._on_silence)

    def _on_life(self) -> None:
        self._silence.cancel()
        self._await_life()
        if not os.read(self._report.fileno(), 4096):  # it ends, which must not take longer either
            asyncio.get_running_loop().remove_reader(self._report.fileno())

    def _on_silence(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._silence.when() > LATE_SECONDS:
            self._await_life()  # this process was stopped as well
            return
        _log.error(
            "Worker %d has not shown a sign of life for %g s and is killed.", self.process.pid, self._hang_seconds
        )
        self._was_silent = True
        self.process.kill()


async def _readable(descriptor: int) -> None:
    loop, is_readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(descriptor)


# ── inside the worker ──────────────────────────────────────────────────────────────────────────────────────────────


def _work(
    pack: InstalledPack, settings: Settings, address: port.Address, metrics: SharedMetrics | None, report: Connection
) -> None:
    log_to_stderr(settings)
    if metrics is not None:
        with suppress(OSError):  # the parent was killed, and so ends this process
            metrics_folder.hold(metrics.folder)  # until the end of the process

    def on_open() -> None:
        report.send(None)
        os.set_blocking(report.fileno(), False)

    def on_beat() -> None:
        with suppress(OSError):  # the parent does not read, or is gone
            os.write(report.fileno(), b".")

    try:
        threading.Thread(target=_end_with_parent, args=(settings.shutdown_grace_seconds,), daemon=True).start()
        from arcface_api.serving import server  # noqa: PLC0415  # takes 1.5 s, which the parent saves

        server.run(pack, settings, port.bind(address, is_shared=True), on_open, on_beat, metrics)
    except ArcFaceError as error:
        report.send(error)
    except (OSError, MemoryError, RuntimeError) as error:
        refused = refusal(error)
        if refused is None:
            raise
        report.send(refused)


def _end_with_parent(grace_seconds: int) -> None:
    """Wait for the parent's end, which no signal announces; then stop as if the parent had sent SIGTERM."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101  # a worker has one
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds + HUNG_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
