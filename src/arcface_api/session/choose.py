"""Chooses the backend that a model runs on, and its lanes.

    SessionConfig ─plan─▶ backends ─open, self-test─▶ the first that passes (GPU, AMX), else the fastest
        ─▶ number of lanes: as set, else the fastest ─▶ Chosen

There is no silent fallback: a device or precision that was asked for by name is used or refused. `auto` may fall back,
and `Chosen.reason` explains each step down.

One module, because every step opens and tests sessions in the same way (`_Trial`), and caches what it found.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib import metadata

import numpy as np
import onnxruntime as ort

from arcface_api.arrays import Features
from arcface_api.errors import ArcFaceError, ModelFailed, RuntimeUnfit
from arcface_api.session import openvino_cpu
from arcface_api.session.cache import Cache
from arcface_api.session.graphs import REWRITING_VERSION
from arcface_api.session.lanes import ONE_LANE, LaneConfig, candidates, fastest_lanes, fits, unmeasured_lanes
from arcface_api.session.onnx_cpu import CPU_PROVIDER, ModelContent, OnnxCpuSession, Session
from arcface_api.session.onnx_gpu import GPU_PROVIDERS, OnnxGpuSession
from arcface_api.session.openvino_cpu import OPENVINO, OpenVinoSession
from arcface_api.session.plan import FLUSHING_REFERENCE, REFERENCE, Backend, Plan, SessionConfig, plan_for
from arcface_api.session.self_test import (
    MIN_COSINE,
    fastest,
    lowest_cosine,
    median_similarity,
    probe_crops,
    reference_features,
)
from arcface_api.wording import counted

CPU_MAX_BATCH, GPU_MAX_BATCH = 8, 64
"""A CPU gains almost nothing from batches above 8; a GPU needs larger ones to be kept busy."""
VERDICT_VERSION = 2
"""Part of a cached verdict's key; raised with every change to the probe crops, the self-test or the choice."""
LANES_VERSION = 2
"""Part of the key of a cached number of lanes; raised with every change to how it is found."""

TIMED_FOR_ONE_START = (
    "the fastest backend was timed for this start only: the next start, or another worker, may choose another one and"
    " return slightly different vectors"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A session that has passed the self-test."""

    session: Session
    self_test_cosine: float
    """Lowest cosine of a probe crop's features to float32 on ONNX Runtime's CPU provider."""
    expected: Features
    """The reference's features of the probe crops, (`PROBES`, dim) float32, of this start or of an earlier one."""
    similarity: float
    """Median cosine of different probe faces' features, in float32."""
    reason: str | None
    """Why nothing faster is used, if there is anything to explain."""
    wide: Session | None = None
    """A second copy of the model, for a lone crop: one lane on all threads. None where `session` has only one lane, or
    memory leaves no room. Its rows are the same, bit for bit."""


class _Deviates(RuntimeUnfit):
    """A backend computes something other than the reference, and will at the next start, too."""


def open_session(model: ModelContent, config: SessionConfig, cache: Cache, lanes: LaneConfig = ONE_LANE) -> Chosen:
    """Open a model on the best backend with the best number of lanes, run every batch size, and test the results.

    Raises:
        RuntimeUnfit: A device or precision that was asked for by name cannot be used, or deviates from float32.
        ModelFailed: The model cannot be loaded or run, or its input or output is not as expected.
    """
    planned = plan_for(config.device, config.precision)
    probes = np.stack(probe_crops(model.spec.height, model.spec.width))
    pixels = hashlib.sha256(probes.data).hexdigest()  # versions of OpenCV may resize differently
    about_code = (VERDICT_VERSION, REWRITING_VERSION, ort.__version__, _openvino_version())
    key = ("verdict", about_code, model.sha256, repr(model.spec), pixels, config, planned)
    with nullcontext() if cache.has(*key) else cache.exclusive():
        verdict = _read_verdict(cache, key)
        if verdict is not None:
            earlier, reason, expected = verdict
            try:
                chosen = _with_lanes(_Trial(model, config, cache, expected), earlier, lanes)
            except ArcFaceError as error:  # the machine has changed: try every backend again
                doubt = f"{earlier}, chosen at an earlier start, cannot be used now: {error}"
                _log.warning("%s", doubt)
            else:
                _keep_compiled(chosen.session)
                return replace(chosen, reason=_joined(reason, chosen.reason))
        _log.info("The cache does not know what is fastest on this machine: trying it now, which takes longer.")
        trial = _Trial(model, config, cache)
        backend, chosen = _choose(trial, planned)
        was_kept = _keep_compiled(chosen.session)
        expected, reason, is_final = trial.expected, chosen.reason, trial.is_final
        if verdict is not None and backend != earlier:
            # What failed now may work at the next start, which must then return the same vectors as before.
            reason, is_final = _joined(reason, doubt), False
        facts = {"backend": asdict(backend), "reason": reason, "expected": expected.tolist()}
        is_remembered = is_final and cache.write(json.dumps(facts).encode(), *key)
        if not is_remembered and backend not in planned.preferred and len(planned.timed) > 1:
            _log.warning("%s is used; %s.", backend, TIMED_FOR_ONE_START)
            reason = _joined(reason, TIMED_FOR_ONE_START)
    if was_kept or (lanes != ONE_LANE and backend.provider not in GPU_PROVIDERS):
        # A freshly compiled model keeps its float32 weights in memory; one that was read from the cache does not.
        del trial, chosen
        chosen = _with_lanes(_Trial(model, config, cache, expected), backend, lanes)
        reason = _joined(reason, chosen.reason)
    return replace(chosen, reason=reason)


def open_reference(model: ModelContent, threads: int, batch_sizes: Sequence[int], *, lanes: int = 1) -> Session:
    """Open a model on the reference, which any number of threads may run at once, and run every batch size once.

    Raises ModelFailed if it cannot be loaded or run, or its input or output is not as expected.
    """
    session = OnnxCpuSession(model, threads, batch_sizes, lanes=lanes)
    probe = probe_crops(model.spec.height, model.spec.width)[0]
    for size in session.batch_sizes:
        session.run([probe] * size)
    return session


def batch_sizes(largest: int) -> tuple[int, ...]:
    """The powers of two below `largest`, and `largest`: few enough to warm up each, close to any queue's length."""
    return (*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest)


class _Trial:
    """Opens one model on one backend after another and compares each with the reference's features."""

    def __init__(
        self, model: ModelContent, config: SessionConfig, cache: Cache, expected: Features | None = None
    ) -> None:
        """Computes the reference's features of the probe crops, unless `expected` has them."""
        self.probes = probe_crops(model.spec.height, model.spec.width)
        self.model, self.config, self.cache = model, config, cache
        self._reference: Session | None = None
        if expected is None:
            self._reference = self.open(REFERENCE)
            expected = reference_features(self._reference, self.probes)
        self.expected = expected
        self.failures: list[str] = []
        self.last_failure: ArcFaceError | None = None
        self.is_final = True
        """False once a backend could not be opened: at the next start a driver, memory or a folder may be back."""
        self._unloadable: set[str] = set()

    def test(self, backend: Backend, lanes: int = 1) -> Chosen:
        """Open a backend, run every batch size and compare the results; raise RuntimeUnfit or ModelFailed."""
        session = self._reference if backend == REFERENCE and lanes == 1 else None
        session = session or self.open(backend, lanes)
        cosine = lowest_cosine(session, self.probes, self.expected)
        if cosine < MIN_COSINE and backend.provider == CPU_PROVIDER and lanes == 1:
            raise ModelFailed(  # the reference itself: float32 on ONNX Runtime
                "It returns different features for one picture, alone and in a batch, or twice: their lowest cosine on"
                f" the built-in probe crops is {cosine:.5f}, and {MIN_COSINE} is needed. Export it for inference,"
                " and not quantised dynamically."
            )
        if cosine < MIN_COSINE:
            raise _Deviates(
                f"{backend} deviates from float32: its lowest cosine on the built-in probe crops is {cosine:.5f}, and"
                f" {MIN_COSINE} is needed. Set precision to auto or float32."
            )
        return Chosen(session, cosine, self.expected, median_similarity(self.expected), None)

    def attempt(self, backend: Backend) -> Chosen | None:
        """As `test`, but log and record failures; a provider that cannot be loaded is tried once."""
        if backend.provider in self._unloadable:
            return None
        try:
            return self.test(backend)
        except (ModelFailed, RuntimeUnfit) as error:
            if not isinstance(error, _Deviates):
                self.is_final = False
                if isinstance(error, RuntimeUnfit):
                    self._unloadable.add(backend.provider)
            self.last_failure = error.with_traceback(None)  # whose frames would keep the session's memory
            self.failures.append(f"{backend} is not used: {error}")
            _log.warning("%s", self.failures[-1])
            return None

    def may_flush_denormals(self) -> bool:
        """Whether the features stay the same, bit for bit, when numbers below float32's normal range count as zero."""
        return np.array_equal(reference_features(self.open(FLUSHING_REFERENCE), self.probes), self.expected)

    def open(self, backend: Backend, lanes: int = 1, sizes: Sequence[int] = ()) -> Session:
        """Open a backend, by default for all batch sizes up to the largest; raise RuntimeUnfit or ModelFailed."""
        model, threads = self.model, self.config.threads
        on_gpu = backend.provider in GPU_PROVIDERS
        sizes = sizes or batch_sizes(self.config.max_batch or (GPU_MAX_BATCH if on_gpu else CPU_MAX_BATCH))
        if backend.provider == CPU_PROVIDER:
            return OnnxCpuSession(model, threads, sizes, lanes=lanes, flushes_denormals=backend.flushes_denormals)
        if backend.provider == OPENVINO:
            return OpenVinoSession(model, backend.precision, threads, sizes, self.cache, lanes=lanes)
        # A folder for each model: ONNX Runtime names TensorRT's engines after a graph's nodes, not its weights.
        engines = self.cache.subfolder(f"tensorrt-{REWRITING_VERSION}-{model.sha256[:32]}")
        return OnnxGpuSession(model, backend.provider, backend.precision, threads, sizes, engines)


def _choose(trial: _Trial, planned: Plan) -> tuple[Backend, Chosen]:
    """Carry out the plan; where every backend fails, raise the last one's RuntimeUnfit or ModelFailed."""
    for backend in planned.preferred:
        if (passed := trial.attempt(backend)) is not None:
            # The plan's reasons are about the CPU: they do not concern a GPU that is used.
            about_plan = () if backend.provider in GPU_PROVIDERS else planned.reasons
            return backend, replace(passed, reason=_joined(*about_plan, *trial.failures))
    attempts = {backend: trial.attempt(backend) for backend in planned.timed}
    candidates = {backend: passed for backend, passed in attempts.items() if passed is not None}
    if not candidates:
        assert trial.last_failure is not None  # noqa: S101  # a plan is never empty
        raise trial.last_failure
    winner = fastest([passed.session for passed in candidates.values()], trial.probes)
    backend, passed = next(item for item in candidates.items() if item[1].session is winner)
    reasons = [*planned.reasons, *trial.failures]
    if backend.precision == "float32" and any(each.precision == "bfloat16" for each in candidates):
        reasons.append("bfloat16 was timed at start and is no faster than float32 here")
    if backend == REFERENCE and trial.may_flush_denormals():
        backend, passed = FLUSHING_REFERENCE, trial.test(FLUSHING_REFERENCE)
    return backend, replace(passed, reason=_joined(*reasons))


def _with_lanes(trial: _Trial, backend: Backend, wanted: LaneConfig) -> Chosen:
    """Open and test a backend with the lanes that are wanted, or are fastest; raise RuntimeUnfit or ModelFailed.

    Unless a number was asked for, nothing about lanes makes a start fail: then there is one.
    """
    if backend.provider in GPU_PROVIDERS:
        if wanted.lanes not in (None, 1):
            _log.warning("A GPU runs one inference at a time: %d lanes (ARCFACE_LANES) have no effect.", wanted.lanes)
        return trial.test(backend)
    number, threads = wanted.lanes or _fastest_lanes(trial, backend, wanted.memory_bytes), trial.config.threads
    if number > threads:
        _log.warning(
            "There can be only %s, not %d: each needs a thread (ARCFACE_THREADS).", counted(threads, "lane"), number
        )
        number = threads
    wide = None
    try:
        chosen = trial.test(backend, number)
        _keep_compiled(chosen.session)
        if number > 1 and wanted.lanes is None:
            wide = _wide_lane(trial, backend, chosen.session, wanted.memory_bytes)
    except (ModelFailed, RuntimeUnfit) as error:
        if number == 1 or wanted.lanes is not None:
            raise
        _log.warning("One inference runs at a time, because %d side by side fail: %s", number, error)
        chosen = trial.test(backend)
    for session in (chosen.session, wide):
        if isinstance(session, OpenVinoSession):
            session.release_stored()
    return replace(chosen, wide=wide)


def _wide_lane(trial: _Trial, backend: Backend, session: Session, memory_bytes: float) -> Session | None:
    """A second copy of the model for lone crops, if memory leaves room for it and it computes the same bits."""
    # Without a cache, each copy of the compiled model keeps its graph in memory, too.
    if not trial.cache.keeps() or not fits(_weight_bytes(trial, backend), memory_bytes, session.lanes, 1):
        return None
    some = trial.probes[:2]  # one is framed tightly, one loosely
    try:
        wide = trial.open(backend, sizes=(1,))
        if np.array_equal(reference_features(wide, some), reference_features(session, some)):
            return wide
        why = "on all threads the model computes other bits"
    except (ModelFailed, RuntimeUnfit) as error:
        why = str(error)
    _log.warning("A lone request is slower than it could be, because there is no wide lane: %s", why)
    return None


def _fastest_lanes(trial: _Trial, backend: Backend, memory_bytes: float) -> int:
    """The fastest number of lanes, from the cache or from a race, which is then cached; else a number by rule."""
    config, weights = trial.config, _weight_bytes(trial, backend)
    racers = candidates(config.threads)
    while len(racers) > 1 and not fits(weights, memory_bytes, *racers):  # all are open at once, to be timed in turn
        racers = racers[:-1]
    if len(racers) == 1 or not trial.cache.keeps():
        return max(
            n for n in range(1, unmeasured_lanes(config.threads) + 1) if n == 1 or fits(weights, memory_bytes, n)
        )
    versions = (LANES_VERSION, VERDICT_VERSION, REWRITING_VERSION, ort.__version__, _openvino_version())
    key = ("lanes", versions, trial.model.sha256, repr(trial.model.spec), config, backend, racers)
    with nullcontext() if trial.cache.has(*key) else trial.cache.exclusive():  # two races would disturb each other
        stored = trial.cache.read(*key)
        if stored is not None:
            return int(stored.tobytes())
        _log.info("Finding out how many inferences should run side by side: %s.", " or ".join(map(str, racers)))
        try:
            number = fastest_lanes([trial.open(backend, lanes) for lanes in racers], trial.probes)
        except (ModelFailed, RuntimeUnfit) as error:
            _log.warning("One inference runs at a time, because several side by side fail: %s", error)
            return 1
        trial.cache.write(str(number).encode(), *key)
        return number


def _weight_bytes(trial: _Trial, backend: Backend) -> float:
    return len(trial.model.content) * (0.5 if backend.precision == "bfloat16" else 1.0)


def _openvino_version() -> str:
    return metadata.version("openvino") if openvino_cpu.is_openvino_installed() else ""


def _keep_compiled(session: Session) -> bool:
    """Cache a model if it was compiled now; returns whether it was cached."""
    return isinstance(session, OpenVinoSession) and session.keep()


def _joined(*reasons: str | None) -> str | None:
    return "; ".join(filter(None, reasons)) or None


def _read_verdict(cache: Cache, key: tuple[object, ...]) -> tuple[Backend, str | None, Features] | None:
    """The backend of an earlier start, its reason, and the reference's features of the probe crops."""
    stored = cache.read(*key)
    if stored is None:
        return None
    try:
        facts = json.loads(stored.tobytes())
        return Backend(**facts["backend"]), facts["reason"], np.array(facts["expected"], np.float32)
    except Exception as error:  # noqa: BLE001  # a start works without it
        _log.warning("The cached choice of an earlier start cannot be read; choosing again: %s", error)
        return None
