"""What the service counts and measures, as Prometheus reads it at `/metrics`. Labels have few values, all of them ours.

    answers ──▶ counters, histograms ─┐
    models, queues, process ─refresh──┴─▶ registry ──scrape──▶ text

Several workers keep their values in files of one folder, which the supervisor makes: whichever worker is asked adds up
all of them, and a worker that replaces another one goes on with its counts. One module, because a metric's name, help
and labels stand beside what it is filled with.
"""

import os
import platform
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    values,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from arcface_api.api.log_limit import LogLimit

if TYPE_CHECKING:  # a supervisor, which needs `SharedMetrics` alone, saves what they import
    from arcface_api.api.answers import InfoAnswer
    from arcface_api.api.connections import Connections
    from arcface_api.api.upload import Uploads
    from arcface_api.embedder import Embedded, Embedder

EMBED, EMBED_BATCH = "/embed", "/embed/batch"
ROUTES = frozenset(
    {EMBED, EMBED_BATCH, "/", "/docs", "/health", "/info", "/livez", "/metrics", "/openapi.json", "/readyz"}
)
OTHER_ROUTE, NO_ROUTE = "other", "none"
"""Labels for any other path, and for what was refused before it had one."""
SECONDS_BUCKETS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""From a stage that takes no time to the default of ARCFACE_REQUEST_TIMEOUT_SECONDS."""
REFRESH_SECONDS = 1.0
"""How old a worker's gauges may be when another worker is asked."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series, and nobody reads them

Each = TypeVar("Each")
Mode = Literal["livesum", "livemin", "livemax", "max"]
_ALWAYS_REPORTED = ("embedded", "embedding_invalid", "internal_error", "model_failed")
"""Outcomes that are reported before they occur: Prometheus sees no increase in a series that begins with it."""
FILE_BYTES = 256 * 1024
"""Of each of a worker's files: four times what the metrics take with the labels that usually occur."""
_FILES = ("counter", "histogram", "gauge_max", "gauge_livemax", "gauge_livemin", "gauge_livesum")
"""As prometheus-client names them, by the types and modes below."""
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable in which prometheus-client looks for the folder."""


@dataclass(frozen=True)
class SharedMetrics:
    """Where one of several workers keeps its values."""

    folder: Path
    worker: int
    """Its number; the worker that replaces it has the same one."""
    began_seconds: float
    """Unix time at which the service began, or a worker that replaced another: then each of these is one change."""

    def reserve(self) -> None:
        """Take the memory of the worker's files before they are mapped: running out later would end it by SIGBUS.

        Raises OSError if it cannot be had.
        """
        for kind in _FILES:
            path = self.folder / f"{kind}_{self.worker}.db"
            with path.open("ab") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
                except OSError:
                    path.unlink()  # others would read it
                    raise

    def forget_gauges(self) -> None:
        """The worker has ended: its queue is empty and its memory free. What it counted stays."""
        mark_process_dead(self.worker, str(self.folder))  # type: ignore[no-untyped-call]  # prometheus-client


class _ByLabels(dict[Any, Each]):
    """The parts of a metric by the values of its labels. Finding one takes a third of prometheus-client's time."""

    def __init__(self, find: Callable[..., Each]) -> None:
        """`find`: the metric's own way."""
        super().__init__()
        self._find = find

    def __missing__(self, labels: Any) -> Each:
        self[labels] = part = self._find(*labels) if isinstance(labels, tuple) else self._find(labels)
        return part


class _Histogram(Histogram):
    """prometheus-client's, whose values are counted many at a time: one by one they take four times as long."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._noted: list[float] = []

    def note(self, value: float) -> None:
        """To be counted by `count`."""
        self._noted.append(value)

    def count(self) -> None:
        """As `observe` would, for each value that was noted."""
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        self._sum.inc(sum(noted))
        for bucket, number in Tally(bisect_left(self._upper_bounds, value) for value in noted).items():
            self._buckets[bucket].inc(number)


class Metrics:
    """The metrics of one process. Its methods belong to the event loop."""

    def __init__(self, shared: SharedMetrics | None = None) -> None:
        """All start at zero, or with what the worker before this one counted."""
        self._shared = shared
        if shared is None:
            values.ValueClass = values.MutexValue
        else:
            os.environ[_FOLDER] = str(shared.folder)
            values.ValueClass = values.MultiProcessValue(lambda: shared.worker)  # type: ignore[no-untyped-call]  # prometheus-client
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {}
        """Of each metric, by its name without the suffixes of its samples."""
        count, parts, measure, state = self._counter, self._counters, self._histograms, self._gauge
        self._requests = parts(
            "arcface_requests", "Answered requests. `code` is that of the problem, if any.", "route", "status", "code"
        )
        self._callers_left = count("arcface_callers_left", "Requests whose caller left before the answer.", "route")
        self._request_seconds = measure(
            "arcface_request_seconds", "Requests to embed, from the end of the head to the end of the answer.", "route"
        )
        self._stage_seconds = measure(
            "arcface_stage_seconds", "Stages of the requests that embedded; `respond` is all that comes after.", "stage"
        )
        self._pictures = parts(
            "arcface_pictures", "Pictures: `embedded`, or the code of the problem that refused it.", "outcome"
        )
        self._pictures_by_key = parts(
            "arcface_pictures_by_key", "Embedded pictures by the name of the API key, where keys are needed.", "key"
        )
        self._alignments = parts("arcface_alignments", "Embedded pictures by their X-Alignment.", "alignment")
        self._warnings = count("arcface_warnings", "Warnings about embedded pictures.", "warning")
        self._batches = count(
            "arcface_batches",
            "Batches that the recogniser has run, by number of pictures. Health and self-checks count.",
            "size",
        )
        self._busy_seconds = count(
            "arcface_lane_busy_seconds", "Time in which the recogniser ran, of all lanes together."
        )
        self._log_lines_dropped = count(
            "arcface_log_lines_dropped", "Lines that the log left out, because there were too many of their kind."
        )
        self._answers_cut_off = count(
            "arcface_answers_cut_off", "Answers that were read too slowly while too many bytes of answers waited."
        )
        self._cpu_seconds = count("process_cpu_seconds", "CPU time of the processes that serve.")
        self._inside = state("arcface_pictures_inside", "Pictures that are admitted and not answered.")
        self._capacity = state("arcface_pictures_capacity", "Most pictures inside. One more gets 429.")
        self._queued = state("arcface_queued_pictures", "Pictures that wait for the recogniser.")
        self._upload_bytes = state("arcface_upload_bytes_inside", "Bytes of uploads that are not answered.")
        self._upload_capacity = state("arcface_upload_capacity_bytes", "Most bytes of uploads inside. More get 429.")
        self._connections = state("arcface_connections", "Open connections.")
        self._connections_capacity = state("arcface_connections_capacity", "Most open connections.")
        self._handshakes_failed = count("arcface_tls_handshakes_failed", "Connections that ended because TLS failed.")
        self._certificate_expires = state(
            "arcface_tls_certificate_expiry_seconds",
            "Unix time at which the certificate of the port ends; 0 without TLS.",
            mode="livemin",
        )
        self._lanes = state("arcface_lanes", "Inferences that may run side by side.")
        self._threads = state("arcface_threads", "Threads of all lanes.")
        self._self_test = state(
            "arcface_self_test_cosine",
            "Lowest cosine to float32 on the CPU, of synthetic faces at start.",
            mode="livemin",
        )
        self._self_checks = parts(
            "arcface_self_checks",
            "Checks of synthetic faces while the service runs: `passed`, `failed` (could not be carried out), or"
            " `drifted` (other vectors than before).",
            "result",
        )
        self._self_check = state(
            "arcface_self_check_cosine",
            "Lowest cosine to float32 on the CPU of the last such check.",
            mode="livemin",
        )
        self._doubt = state(
            "arcface_model_is_doubted", "1 if the embeddings are probably useless, as /health explains.", mode="livemax"
        )
        self._about_model = state(
            "arcface_model_info",
            "The loaded recogniser: always 1.",
            *("pack", "model", "provider", "precision", "fingerprint", "recipe"),
            mode="livemax",
        )
        self._about_build = state("arcface_build_info", "The service: always 1.", "version", "python", mode="livemax")
        self._process_gauges = {
            "process_resident_memory_bytes": state(
                "process_resident_memory_bytes", "Memory of the processes that serve; what they share counts for each."
            ),
            "process_open_fds": state("process_open_fds", "Open files and connections of the processes that serve."),
            "process_max_fds": state("process_max_fds", "Most open files of the processes that serve."),
            "process_start_time_seconds": state(
                "process_start_time_seconds",
                "Unix time at which the service began, or the newest worker that replaced another.",
                mode="max",  # of those that have died, too: until another one replaces it, nothing has begun
            ),
        }
        if shared is not None:  # at once, as it may die soon
            self._process_gauges.pop("process_start_time_seconds").set(shared.began_seconds)
        self._process = ProcessCollector(registry=None)
        self._counted_cpu_seconds = self._counted_busy_seconds = 0.0
        self._counted_batches = Tally[int]()
        self._counted_cut_off = 0
        self._counted_lines = LogLimit.dropped_lines
        self._counted_handshakes = 0

    # ── what happens ───────────────────────────────────────────────────────────────────────────────────────────────

    def embedded(self, embedded: "Embedded", key: str | None = None) -> None:
        """A picture was embedded, for the caller whose API key has this name."""
        self._pictures["embedded"].inc()
        if key is not None:
            self._pictures_by_key[key].inc()
        self._alignments[embedded.alignment.value].inc()
        for warning in embedded.warnings:
            self._warnings.labels(warning.value).inc()
        self.passed(embedded.stages)

    def refused(self, code: str) -> None:
        """A picture was refused with a problem of this code."""
        self._pictures[code].inc()

    def passed(self, stages: dict[str, float]) -> None:
        """Stages took so many milliseconds; `count` counts them."""
        for stage, ms in stages.items():
            self._stage_seconds[stage].note(ms / 1000)

    def answered(self, route: str, status: int, code: str, seconds: float) -> None:
        """A request was answered; `count` counts its time."""
        self._requests[route, status, code].inc()
        if route in (EMBED, EMBED_BATCH):
            self._request_seconds[route].note(seconds)

    def checked(self, result: str, lowest_cosine: float) -> None:
        """The self-check has run."""
        self._self_checks[result].inc()
        self._self_check.set(lowest_cosine)

    def left(self, route: str) -> None:
        """A caller left."""
        self._callers_left.labels(route).inc()

    def count(self) -> None:
        """Count the times that were noted."""
        for histograms in (self._stage_seconds, self._request_seconds):
            for histogram in histograms.values():
                histogram.count()

    # ── how it stands ──────────────────────────────────────────────────────────────────────────────────────────────

    def started(self, info: "InfoAnswer", upload_capacity: int) -> None:
        """The service is ready; these facts stay."""
        self._self_test.set(info.self_test_cosine)
        self._self_check.set(info.self_test_cosine)
        for result in ("passed", "failed", "drifted"):
            self._self_checks[result].inc(0)
        self._doubt.set(info.doubt is not None)
        self._lanes.set(info.lanes)
        self._threads.set(info.threads)
        self._upload_capacity.set(upload_capacity)
        self._connections_capacity.set(info.limits.max_connections)
        self._about_model.labels(
            info.pack, info.model, info.provider, info.precision, info.fingerprint, info.recipe
        ).set(1)
        for outcome in _ALWAYS_REPORTED:
            self._pictures[outcome].inc(0)
        self._about_build.labels(info.version, platform.python_version()).set(1)

    def refresh(self, embedder: "Embedder", uploads: "Uploads", connections: "Connections") -> None:
        """Note how the process stands now."""
        self._inside.set(embedder.inside)
        self._capacity.set(embedder.capacity)
        self._queued.set(embedder.recognition.queued)
        self._upload_bytes.set(uploads.inside_bytes)
        self._connections.set(connections.open)
        if (tls := connections.tls) is not None:
            self._certificate_expires.set(tls.expires_seconds)
            self._handshakes_failed.inc(tls.handshakes_failed - self._counted_handshakes)
            self._counted_handshakes = tls.handshakes_failed
        batches, busy_seconds = Tally(embedder.recognition.batches), embedder.recognition.busy_seconds
        for size, number in (batches - self._counted_batches).items():
            self._batches.labels(size).inc(number)
        self._busy_seconds.inc(busy_seconds - self._counted_busy_seconds)
        self._counted_batches, self._counted_busy_seconds = batches, busy_seconds
        self._answers_cut_off.inc(connections.cut_off - self._counted_cut_off)
        self._counted_cut_off = connections.cut_off
        lines = LogLimit.dropped_lines
        self._log_lines_dropped.inc(lines - self._counted_lines)
        self._counted_lines = lines
        for family in self._process.collect():
            for sample in family.samples:
                if sample.name in self._process_gauges:
                    self._process_gauges[sample.name].set(sample.value)
                elif sample.name == "process_cpu_seconds_total":
                    self._cpu_seconds.inc(sample.value - self._counted_cpu_seconds)
                    self._counted_cpu_seconds = sample.value

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics of all workers, in the format that `accept` prefers, and its media type."""
        registry = self.registry
        if self._shared is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(self._shared.folder))  # type: ignore[no-untyped-call]  # prometheus-client
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self.labels[name] = labels
        return Counter(name, text, labels, registry=self.registry)

    def _counters(self, name: str, text: str, *labels: str) -> "_ByLabels[Counter]":
        return _ByLabels(self._counter(name, text, *labels).labels)

    def _histograms(self, name: str, text: str, *labels: str) -> "_ByLabels[_Histogram]":
        self.labels[name] = labels
        return _ByLabels(_Histogram(name, text, labels, registry=self.registry, buckets=SECONDS_BUCKETS).labels)

    def _gauge(self, name: str, text: str, *labels: str, mode: Mode = "livesum") -> Gauge:
        """`mode`: how the values of several workers become one."""
        self.labels[name] = labels
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=mode)
