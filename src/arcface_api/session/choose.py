"""Which provider and precision a model runs with, and why not with a faster one.

    Wish ─candidates─▶ try each: open, prove on probe faces ─▶ the first that proves itself (GPU), the fastest (CPU)

No silent second best: what was asked for by name is used or refused; `auto` may fall back, and every step down leaves a
sentence in `Chosen.reason`. An accelerated session that strays from float32 on ONNX Runtime's CPU provider is not used.

Longer than most modules: what is planned, tried, chosen and remembered is one story, and its parts serve nobody else.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO

import numpy as np
import onnxruntime as ort

from arcface_api.arrays import Crop, Features
from arcface_api.cpus import cpu_flags
from arcface_api.errors import ArcFaceError, ModelFailed, RuntimeUnfit
from arcface_api.session import openvino_cpu
from arcface_api.session.cache import Cache
from arcface_api.session.graphs import REWRITING_VERSION
from arcface_api.session.model import ModelContent, Session
from arcface_api.session.onnx_cpu import CPU_PROVIDER, OnnxCpuSession
from arcface_api.session.onnx_gpu import CUDA_PROVIDER, GPU_PROVIDERS, TENSORRT_PROVIDER, OnnxGpuSession
from arcface_api.session.openvino_cpu import OPENVINO, OpenVinoSession
from arcface_api.session.proving import MIN_COSINE, fastest, lowest_cosine, reference_features
from arcface_api.session.self_test import probe_crops
from arcface_api.settings import Device, Precision

CPU_MAX_BATCH, GPU_MAX_BATCH = 8, 64
"""Nearly all that batching gains on a CPU is in by 8; a GPU wants more to be kept busy."""
VERDICT_VERSION = 1
"""Part of the key of what a start remembers; raised with every change to probes, proving or the choice."""

TIMED_FOR_ONE_START = (
    "what is fastest was timed for this start only: the next one, or another worker, may run another way and give"
    " slightly different vectors"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """How a model shall run."""

    device: Device
    precision: Precision
    threads: int
    max_batch: int | None
    """None: as many as pay on the device."""


@dataclass(frozen=True)
class Candidate:
    """One way to run a model."""

    provider: str
    """`CPU_PROVIDER`, `OPENVINO`, `CUDA_PROVIDER` or `TENSORRT_PROVIDER`."""
    precision: str
    """float32, bfloat16 (OpenVINO) or float16 (GPUs)."""
    flushes_denormals: bool = False

    def __str__(self) -> str:
        return f"{self.provider} in {self.precision}"


@dataclass(frozen=True)
class Plan:
    """The ways to try."""

    in_order: tuple[Candidate, ...]
    """The first of these that proves itself is taken."""
    racing: tuple[Candidate, ...] = ()
    """If none of them does: the fastest of these that prove themselves."""
    reasons: tuple[str, ...] = ()
    """Why better ways are not among them."""


@dataclass(frozen=True)
class Chosen:
    """A session that has proved itself."""

    session: Session
    self_test_cosine: float
    """The lowest cosine of a probe face's features to float32 on ONNX Runtime's CPU provider; 1 for that itself."""
    reason: str | None
    """Why a faster choice was not taken; None where there is nothing to explain."""


REFERENCE = Candidate(CPU_PROVIDER, "float32")
FLUSHING_REFERENCE = Candidate(CPU_PROVIDER, "float32", flushes_denormals=True)


def check_installation() -> None:
    """Refuse an environment that holds both builds of ONNX Runtime.

    They install into the same folder: whichever came last wins, file by file, and CUDA is then found or not by chance.

    Raises:
        RuntimeUnfit: Both distributions are installed.
    """
    if all(map(_is_installed, ("onnxruntime", "onnxruntime-gpu"))):
        raise RuntimeUnfit(
            "Both onnxruntime and onnxruntime-gpu are installed; they overwrite each other's files, so only one may"
            " be. Run `pip uninstall onnxruntime onnxruntime-gpu`, then install arcface-api[cpu] or"
            " arcface-api[cuda]."
        )


def plan(device: Device, precision: Precision) -> Plan:
    """The ways in which a wish can be fulfilled on this machine and with this installation.

    Raises:
        RuntimeUnfit: It cannot be: the build of ONNX Runtime, the CPU or a package is lacking, or it is never offered.
    """
    if precision == "int8":
        raise RuntimeUnfit(
            "precision=int8 is not offered: it loses more than it may of what tells faces apart (docs/precision.md has"
            " the figures). Allowed are auto, float32, bfloat16 (CPU) and float16 (GPU)."
        )
    available = ort.get_available_providers()
    if device in ("cuda", "tensorrt"):
        provider = CUDA_PROVIDER if device == "cuda" else TENSORRT_PROVIDER
        if provider not in available:
            raise RuntimeUnfit(
                f"device={device} was asked for, but this build of ONNX Runtime has only {', '.join(available)}."
                " Install arcface-api[cuda] instead of arcface-api[cpu], or set device to cpu or auto."
            )
        if precision == "bfloat16":
            raise RuntimeUnfit(
                f"precision=bfloat16 is for CPUs. With device={device}, set it to auto, float16 or float32."
            )
        return Plan(_on_gpu(provider, precision))
    has_cuda = device == "auto" and CUDA_PROVIDER in available
    if precision == "float16" and not has_cuda:
        raise RuntimeUnfit(
            "precision=float16 is for GPUs; on CPUs it is no faster than float32. Set precision to auto, or device to"
            " cuda."
        )
    gpu = _on_gpu(CUDA_PROVIDER, precision) if has_cuda and precision != "bfloat16" else ()
    cpu = _on_cpu(precision) if precision != "float16" else Plan(())
    if has_cuda and precision == "bfloat16":
        return Plan(cpu.in_order, cpu.racing, ("the GPU is not used: precision=bfloat16 is for CPUs", *cpu.reasons))
    no_cuda = ("this build of ONNX Runtime has no CUDA",) if device == "auto" and not has_cuda else ()
    return Plan((*gpu, *cpu.in_order), cpu.racing, (*no_cuda, *cpu.reasons))


def _on_gpu(provider: str, precision: Precision) -> tuple[Candidate, ...]:
    precisions = ("float16", "float32") if precision == "auto" else (precision,)
    return tuple(Candidate(provider, name) for name in precisions)


def _on_cpu(precision: Precision) -> Plan:
    """AMX makes bfloat16 the fastest beyond doubt; anything else is found out by timing it."""
    flags = cpu_flags()
    lacking: str | None = None
    if not openvino_cpu.is_openvino_installed():
        lacking = "the package openvino is not installed (it is part of arcface-api[cpu] on x86-64)"
    elif not flags & {"amx_bf16", "avx512_bf16"}:
        lacking = "this CPU has no bfloat16 instructions (amx_bf16 or avx512_bf16)"
    bfloat16 = Candidate(OPENVINO, "bfloat16")
    if precision == "bfloat16":
        if lacking is not None:
            raise RuntimeUnfit(f"precision=bfloat16 was asked for, but {lacking}. Set precision to auto or float32.")
        return Plan((bfloat16,))
    racing: tuple[Candidate, ...] = (REFERENCE,)
    if openvino_cpu.is_openvino_installed():
        racing = (Candidate(OPENVINO, "float32"), *racing)
    if precision == "float32":
        return Plan((), racing)
    if lacking is not None:
        return Plan((), racing, (lacking,))
    return Plan((bfloat16,), racing) if "amx_bf16" in flags else Plan((), (bfloat16, *racing))


def open_session(model: ModelContent, wish: Wish, cache: Cache) -> Chosen:
    """The best session for a model: opened, warmed in every batch size, and proved.

    Raises:
        RuntimeUnfit: What was asked for by name cannot be used, or strays from float32.
        ModelFailed: The model cannot be loaded or run, or its input or output is not as expected.
    """
    planned = plan(wish.device, wish.precision)
    probes = probe_crops(model.spec.height, model.spec.width)
    drawn = hashlib.sha256(np.stack(probes).data).hexdigest()  # OpenCV and NumPy drew them
    about_code = (VERDICT_VERSION, REWRITING_VERSION, *_versions())
    key = ("verdict", about_code, model.sha256, repr(model.spec), drawn, wish, planned)
    with nullcontext() if cache.has(*key) else cache.exclusive():
        verdict, doubt = _recall(cache, key), ""
        if verdict is not None:
            try:
                trial = _Trial(model, wish, cache, probes, verdict.expected)
                chosen = trial.proved(verdict.candidate, verdict.reason)
            except ArcFaceError as error:  # the machine is not what it was: look at everything again
                doubt = f"{verdict.candidate} is not simply used again: {error}"
                _log.warning("%s", doubt)
            else:
                _keep(chosen.session)
                return chosen
        trial = _Trial(model, wish, cache, probes)
        candidate, chosen, is_lasting = _choose(trial, planned)
        is_kept = _keep(chosen.session)
        expected, reason = trial.expected, chosen.reason
        if verdict is not None and candidate != verdict.candidate:
            # What failed now may run tomorrow, and is then to give the vectors that it gave before.
            reason, is_lasting = _joined(reason, doubt), False
        is_remembered = is_lasting and _remember(cache, key, _Verdict(candidate, reason, expected))
        if not is_remembered and candidate not in planned.in_order and len(planned.racing) > 1:
            _log.warning("%s is used; %s.", candidate, TIMED_FOR_ONE_START)
            reason = _joined(reason, TIMED_FOR_ONE_START)
    if is_kept:
        # Compiled here, it holds what it was compiled from; taken from the cache, as by the next start, it does not.
        del trial, chosen
        return _Trial(model, wish, cache, probes, expected).proved(candidate, reason)
    return replace(chosen, reason=reason)


def open_reference(model: ModelContent, threads: int, batch_sizes: Sequence[int]) -> Session:
    """The model on ONNX Runtime's CPU provider in float32, warmed in every batch size; several threads may run it.

    Raises:
        ModelFailed: It cannot be loaded or run, or its input or output is not as expected.
    """
    session = OnnxCpuSession(model, threads, batch_sizes)
    probes = probe_crops(model.spec.height, model.spec.width)
    for size in session.batch_sizes:
        session.run([probes[index % len(probes)] for index in range(size)])
    return session


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Powers of two up to the largest, and that: few enough to warm each, never much smaller than what is queued."""
    return (*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest)


class _Trial:
    """One model on trial: opens candidates and holds each against the reference's features, which are made once."""

    def __init__(
        self, model: ModelContent, wish: Wish, cache: Cache, probes: Sequence[Crop], expected: Features | None = None
    ) -> None:
        self.probes = probes
        self._model, self._wish, self._cache = model, wish, cache
        self._reference: Session | None = None
        if expected is None:
            self._reference = self._open(REFERENCE)
            expected = reference_features(self._reference, probes)
        self.expected = expected
        """(n, dim) float32 of the probes."""

    def proved(self, candidate: Candidate, reason: str | None) -> Chosen:
        """A candidate, opened, warmed in every batch size, and proved.

        Raises:
            RuntimeUnfit: It cannot be loaded, or strays from float32.
            ModelFailed: It cannot load or run the model.
        """
        session = self._reference if candidate == REFERENCE and self._reference is not None else self._open(candidate)
        cosine = lowest_cosine(session, self.probes, self.expected)
        if cosine < MIN_COSINE:
            raise _Strays(
                f"{candidate} strays from float32: its lowest cosine on the built-in probe faces is {cosine:.5f}, and"
                f" {MIN_COSINE} is needed. Set precision to auto or float32."
            )
        return Chosen(session, cosine, reason)

    def may_flush_denormals(self) -> bool:
        """Whether the features stay the same, bit for bit, when numbers below the normal range count as zero."""
        flushing = self._open(FLUSHING_REFERENCE)
        return np.array_equal(reference_features(flushing, self.probes), self.expected)

    def _open(self, candidate: Candidate) -> Session:
        model, threads = self._model, self._wish.threads
        if candidate.provider == CPU_PROVIDER:
            flushes = candidate.flushes_denormals
            return OnnxCpuSession(model, threads, self._sizes(CPU_MAX_BATCH), flushes_denormals=flushes)
        if candidate.provider == OPENVINO:
            return OpenVinoSession(model, candidate.precision, threads, self._sizes(CPU_MAX_BATCH), self._cache)
        # A folder for each model: ONNX Runtime names engines after a graph's nodes, and not after its weights.
        engines = self._cache.subfolder(f"tensorrt-{REWRITING_VERSION}-{model.sha256[:32]}")
        return OnnxGpuSession(
            model, candidate.provider, candidate.precision, threads, self._sizes(GPU_MAX_BATCH), engines
        )

    def _sizes(self, most: int) -> tuple[int, ...]:
        return batch_sizes(self._wish.max_batch or most)


class _Strays(RuntimeUnfit):
    """It computes something else than the reference, and will do so tomorrow."""


def _keep(session: Session) -> bool:
    """Have a compiled model written for the next start; False where there is none, or it cannot be, or it is there."""
    return isinstance(session, OpenVinoSession) and session.keep()


def _choose(trial: _Trial, planned: Plan) -> tuple[Candidate, Chosen, bool]:
    """The plan carried out; and whether the next start may take the result for granted.

    It may not where a way could not be opened: a driver, memory or a folder that is missing today may be there then.

    Raises:
        RuntimeUnfit, ModelFailed: Why the last way was not to be had, where none was.
    """
    failures: list[str] = []
    failure: ArcFaceError | None = None
    is_lasting = True
    unloadable: set[str] = set()
    for candidate in planned.in_order:
        if candidate.provider in unloadable:
            continue
        # What the plan has to explain is about the CPU: a GPU that is used needs no excuse for it.
        about_plan = () if candidate.provider in GPU_PROVIDERS else planned.reasons
        try:
            return candidate, trial.proved(candidate, _joined(*about_plan, *failures)), is_lasting
        except (ModelFailed, RuntimeUnfit) as error:
            if isinstance(error, RuntimeUnfit) and not isinstance(error, _Strays):
                unloadable.add(candidate.provider)  # in any precision, so it is said once
            failure, is_lasting = error, is_lasting and isinstance(error, _Strays)
            failures.append(f"{candidate} is not used: {error}")
            _log.warning("%s", failures[-1])
    proved: dict[Candidate, Chosen] = {}
    for candidate in planned.racing:
        try:
            proved[candidate] = trial.proved(candidate, None)
        except (ModelFailed, RuntimeUnfit) as error:
            failure, is_lasting = error, is_lasting and isinstance(error, _Strays)
            failures.append(f"{candidate} is not used: {error}")
            _log.warning("%s", failures[-1])
    if not proved:
        assert failure is not None  # noqa: S101  # a plan is never empty
        raise failure
    sessions = [chosen.session for chosen in proved.values()]
    winner = fastest(sessions, trial.probes) if len(sessions) > 1 else sessions[0]
    taken = next(candidate for candidate, chosen in proved.items() if chosen.session is winner)
    reasons = [*planned.reasons, *failures]
    if taken.precision == "float32" and any(candidate.precision == "bfloat16" for candidate in proved):
        reasons.append("bfloat16 was timed at start and is no faster than float32 here")
    chosen = Chosen(proved[taken].session, proved[taken].self_test_cosine, _joined(*reasons))
    if taken == REFERENCE and trial.may_flush_denormals():
        return FLUSHING_REFERENCE, trial.proved(FLUSHING_REFERENCE, chosen.reason), is_lasting
    return taken, chosen, is_lasting


@dataclass(frozen=True)
class _Verdict:
    """What one start remembers for the next."""

    candidate: Candidate
    reason: str | None
    expected: Features


def _joined(*reasons: str | None) -> str | None:
    return "; ".join(filter(None, reasons)) or None


def _remember(cache: Cache, key: tuple[object, ...], verdict: _Verdict) -> bool:
    told = {"candidate": asdict(verdict.candidate), "reason": verdict.reason}
    content = BytesIO()
    np.savez(content, told=np.array(json.dumps(told)), expected=verdict.expected)
    return cache.write(content.getvalue(), *key)


def _recall(cache: Cache, key: tuple[object, ...]) -> _Verdict | None:
    stored = cache.read(*key)
    if stored is None:
        return None
    try:
        content = np.load(BytesIO(stored.tobytes()), allow_pickle=False)
        told = json.loads(str(content["told"]))
        return _Verdict(Candidate(**told["candidate"]), told["reason"], content["expected"])
    except Exception as error:  # noqa: BLE001  # whatever is wrong with it, a start can do without
        _log.warning("What an earlier start remembered cannot be read and is worked out anew: %s", error)
        return None


def _versions() -> tuple[str, ...]:
    openvino = openvino_cpu.openvino_version() if openvino_cpu.is_openvino_installed() else ""
    return ort.__version__, openvino


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
